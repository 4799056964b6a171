"""Effect: a house whose servers run on GPUs that are made up."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.cards import FakeGpus
from tests.faults.harness import Document, House, Server

HANDLERS = Path(__file__).with_name("handlers.py")


def start_on(house: House, gpus: FakeGpus, *flags: str, env: dict[str, str] | None = None) -> Server:
    """A server on all these GPUs, with `handlers.py` of this folder besides the usual handlers."""
    gpu_env = gpus.environ(house.tree) | (env or {})
    return house.start("--gpus", "all", "--handlers", str(HANDLERS), *flags, executors=8, env=gpu_env)


def devices(server: Server) -> dict[str, Document]:
    """What the server says of its devices, by id."""
    return {each["id"]: each for each in server.http.get("/v1/devices").json()["data"]}

"""Effect: a server_fixture whose servers run on GPUs that are made up."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.fake_gpus import FakeGpus
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

HANDLERS = Path(__file__).with_name("handlers.py")


def start_on_gpus(
    server_fixture: ServerFixture, gpus: FakeGpus, *flags: str, env: dict[str, str] | None = None
) -> LiveServer:
    """A server on all these GPUs, with `handlers.py` of this folder besides the usual handlers."""
    gpu_env = gpus.environ(server_fixture.tree) | (env or {})
    return server_fixture.start(
        "--gpus", "all", "--handlers", str(HANDLERS), *flags, executors=8, env=gpu_env
    )


def devices(server: LiveServer) -> dict[str, Document]:
    """What the server says of its devices, by id."""
    return {each["id"]: each for each in server.http.get("/v1/devices").json()["data"]}


class FileGate:
    """Jobs that hold bytes of a GPU until they are let go."""

    def __init__(self, server: LiveServer, folder: Path) -> None:
        self._server, self._path = server, folder / "gate"

    def submit(self, handler: str = "take", *, nbytes: str = "1GiB", **options: object) -> str:
        return self._server.submit(handler, {"bytes": [nbytes], "gate": str(self._path)}, **options)

    def submit_running(self, handler: str = "take", *, nbytes: str = "1GiB", **options: object) -> str:
        """One that holds its bytes."""
        job_id = self.submit(handler, nbytes=nbytes, **options)
        until(lambda: self._server.job(job_id)["progress"], "it runs")
        return job_id

    def open(self) -> None:
        self._path.touch()


def device_of(server: LiveServer, job_id: str) -> str:
    """Where a job runs."""
    (device,) = server.job(job_id)["devices"]
    return str(device)


def explain_job(server: LiveServer, job_id: str) -> Document:
    return dict(server.http.get(f"/v1/jobs/{job_id}/explain").json())


def kill_job(server: LiveServer, job_id: str) -> None:
    """A job's executor is gone, and it was not asked before."""
    assert server.http.post(f"/v1/jobs/{job_id}/cancel", json={"force": True}).status_code == 202
    assert server.wait_for_end(job_id)["state"] == "cancelled"


def gpus_of(server: LiveServer) -> list[Document]:
    return [device for device in devices(server).values() if device["kind"] == "nvidia"]


def device_healths(server: LiveServer) -> list[str]:
    """Of each "ok", or in words what is wrong with it."""
    return [str(device["health"]) for device in gpus_of(server)]

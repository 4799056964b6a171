"""A coordinator for tests: a real router, a real worker process, and nothing decided in between."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from runner.handlers.spec import HandlerSpec, Source
from runner.processes import child as child_processes
from runner.processes.child import WorkerConfig
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import (
    AttemptEnded,
    AttemptEvents,
    AttemptSpec,
    Hello,
    LoadExecutor,
    NumberedFrame,
    RunAttempts,
)
from runner.protocol.zmq_router import ZmqRouter

HANDLERS = Path(__file__).with_name("handlers.py")
Found = TypeVar("Found", bound=msgspec.Struct)


def spec(name: str) -> HandlerSpec:
    """A handler of this folder, described by hand; "SlowLoad" is the class of "slow_load"."""
    attr = "".join(part.title() for part in name.split("_")) if "load" in name else name
    return HandlerSpec(name, "1", "ok", Source("file", str(HANDLERS), attr, (str(HANDLERS.parent),)))


def attempt(job: str, handler: str = "echo", data: Any = None, **terms: Any) -> AttemptSpec:
    """First attempt of a job."""
    return AttemptSpec(job, 1, handler, json.dumps(data).encode(), **terms)


class StubCoordinator:
    """`async with Fake() as fake:`; every message that came is in `seen`, in its order."""

    #: Modules of which the worker has a template, and the environment of that.
    template: ClassVar[list[str]] = []

    def __init__(self, *, device_kind: str = "cpu", **config: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fake-", dir="/tmp"))
        self.seen: list[msgspec.Struct] = []
        self.hellos: list[Hello] = []
        self.bad: list[str] = []
        self.acknowledges = True
        self.last_number = 0
        self._changed = asyncio.Event()
        self.name = f"cpu-{secrets.token_hex(4)}"
        endpoint = f"ipc://{self.folder}/workers.sock"
        fields: dict[str, Any] = {
            "endpoint": endpoint,
            "token": "secret",
            "node": "here",
            "name": self.name,
            "epoch": 1,
            "device": "cpu",
            "device_kind": device_kind,
            "lock_path": str(self.folder / "cpu.lock"),
            "spool_dir": str(self.folder),
            "files_dir": str(self.folder),
            "tmp_dir": str(self.folder),
            "executor_env": {**os.environ, "PYTHONPATH": os.getcwd()},
            "output_max_bytes": 1 << 20,
            "log_max_bytes": 1 << 20,
            "events_max": 10_000,
            "template": self.template,
        }
        if self.template:
            fields["executor_env"]["TEMPLATE_READY"] = str(self.folder / "template")
        self.config = WorkerConfig(**{**fields, **config})
        self.router = self._router()

    def _router(self) -> ZmqRouter:
        return ZmqRouter(
            self.config.endpoint,
            self.config.token,
            on_frame=self._on_frame,
            on_hello=self._on_hello,
            on_bad_frame=self.bad.append,
        )

    async def __aenter__(self) -> StubCoordinator:
        self.router.open()
        self.start_worker()
        await self.until(lambda: self.hellos)
        if self.template:
            await self.until((self.folder / "template").exists)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.worker.pidfd >= 0:
            self.worker.lifeline.close()
            self.worker.process.wait(5)
            self.worker.close()
        self.router.close()
        shutil.rmtree(self.folder)

    def start_worker(self) -> None:
        self.worker = child_processes.start_child("worker", self.config)

    def send(self, *orders: msgspec.Struct) -> None:
        assert self.router.send(self.name, [worker_protocol.encode(order) for order in orders])

    def load(self, executor: int, handler: str, *attempts: AttemptSpec, **terms: Any) -> None:
        """Cold start, with its attempts in the same frame."""
        order = LoadExecutor(executor, spec(handler), ["cpu"], {}, "cpu", **terms)
        self.send(order, *([RunAttempts(executor, list(attempts))] if attempts else []))

    async def until(self, condition: Callable[[], Any], within_s: float = 10.0) -> Any:
        """What the condition gives once it is true."""
        end = time.monotonic() + within_s
        while not (found := condition()):
            self._changed.clear()
            left = end - time.monotonic()
            assert left > 0, f"not within {within_s} s; seen: {self.seen[-20:]}"
            try:
                await asyncio.wait_for(self._changed.wait(), min(left, 0.05))
            except TimeoutError:
                continue
        return found

    def messages_of(self, kind: type[Found], **fields: Any) -> list[Found]:
        return [
            each
            for each in self.seen
            if isinstance(each, kind) and all(getattr(each, key) == value for key, value in fields.items())
        ]

    async def wait_for(self, kind: type[Found], *, within_s: float = 10.0, **fields: Any) -> Found:
        """The first message of this kind with these fields."""
        found = await self.until(lambda: self.messages_of(kind, **fields), within_s)
        return found[0]  # type: ignore[no-any-return]

    async def wait_for_end(self, job: str, within_s: float = 10.0) -> AttemptEnded:
        return await self.wait_for(AttemptEnded, within_s=within_s, job_id=job)

    def events_of(self, job: str) -> list[tuple[str, dict[str, Any]]]:
        return [
            (kind, json.loads(data))
            for note in self.messages_of(AttemptEvents, job_id=job)
            for kind, _, data in note.events
        ]

    def _on_hello(self, name: str, hello: Hello) -> None:
        self.hellos.append(hello)
        self._changed.set()

    def _on_frame(self, name: str, messages: list[bytes]) -> None:
        decoded = [worker_protocol.from_worker_decoder.decode(message) for message in messages]
        if isinstance(decoded[0], NumberedFrame):
            first, decoded = decoded[0].first, decoded[1:]
            decoded, new_to = decoded[max(0, self.last_number + 1 - first) :], first + len(decoded) - 1
            self.last_number = max(self.last_number, new_to)
            if self.acknowledges:
                self.send(worker_protocol.Ack(self.last_number))
        self.seen.extend(decoded)
        self._changed.set()

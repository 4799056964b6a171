"""Effect: a coordinator for tests: the real control stream to a real front, jobs in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from runner.handlers.spec import HandlerOptions, HandlerSpec, Source
from runner.jobs.job import Submission
from runner.processes.child import Child, FrontConfig, start_child
from runner.protocol import framing
from runner.protocol import front as front_protocol

PROMPT = msgspec.json.encode(
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "steps": {"type": "integer", "minimum": 1},
            "style": {"$ref": "#/$defs/Style"},
        },
        "required": ["text"],
        "$defs": {"Style": {"type": "object", "properties": {"name": {"type": "string"}}}},
    }
)


def spec(name: str, **fields: Any) -> HandlerSpec:
    source = Source("module", "tests", name)
    return HandlerSpec(name=name, version="1", state=fields.pop("state", "ok"), source=source, **fields)


HANDLERS = [
    spec("echo"),
    spec("slow"),
    spec("paint", input_schema=PROMPT, output_schema=PROMPT, options=HandlerOptions(queue="gpu")),
    spec("bad", state="broken", error="Traceback: no\nImportError: no torch"),
]


@dataclass
class FakeJob:
    id: str
    handler: str
    input: bytes
    state: str = "queued"
    output: bytes = b"null"
    events: list[tuple[int, str, bytes]] = field(default_factory=list)
    first_seq: int = 1
    waiters: list[int] = field(default_factory=list)
    waiting: front_protocol.JobWaiting | None = None

    def document(self) -> bytes:
        head = msgspec.json.encode({"id": self.id, "handler": self.handler, "state": self.state})
        return head[:-1] + b',"input":%s,"output":%s}' % (self.input, self.output)

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")


class FakeCoordinator(asyncio.Protocol):
    """Lives on a loop in its own thread; what tests call is safe from any thread.

    Handler `echo` ends at once with its input; all others wait for `finish`.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.asked: list[Any] = []
        self.watched: set[str] = set()
        self.replies: dict[str, front_protocol.Reply] = {}
        #: False: a job's new events are not fed, as if the front's credit were used up.
        self.feeding = True
        #: Job -> events that become durable, and are fed, between its Watch and the page that follows.
        self.before_page: dict[str, Callable[[FakeJob], None]] = {}
        self.hello = threading.Event()
        self._heard = threading.Condition()
        self._buffer = framing.FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.new_event_loop()
        self._out: list[bytes] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    # What tests do.

    def attach(self, stream: socket.socket) -> None:
        made = self._loop.create_connection(lambda: self, sock=stream)
        asyncio.run_coroutine_threadsafe(made, self._loop).result(5)

    def run(self, act: Callable[[], Any]) -> Any:
        done: Future[Any] = Future()

        def call() -> None:
            try:
                done.set_result(act())
            except Exception as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(call)
        return done.result(10)

    def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        """Wait for something that comes about by what the front says."""
        with self._heard:
            assert self._heard.wait_for(condition, timeout_s), "it did not come about in time"

    def new(self, handler: str = "slow", input: bytes = b"null") -> FakeJob:
        job_id = f"00000000-0000-7000-8000-{len(self.jobs):012d}"
        job = FakeJob(job_id, handler, input)
        self.jobs[job_id] = job
        return job

    def emit(self, job: FakeJob, kind: str, **fields: Any) -> None:
        self.run(lambda: self._emit(job, [(kind, fields)]))

    def emit_many(self, job: FakeJob, count: int, text: str = "") -> None:
        burst = [("progress", {"done": number, "text": text}) for number in range(count)]
        self.run(lambda: self._emit(job, burst))

    def finish(self, job: FakeJob, state: str = "succeeded", output: bytes = b"null") -> None:
        self.run(lambda: self._finish(job, state, output))

    def wait(self, job: FakeJob, position: int, eta_s: float | None = None) -> None:
        """The job waits after its last event; readers are told."""
        message = f"waiting for memory, {position}"
        job.waiting = front_protocol.JobWaiting(
            job.id, len(job.events), 0.25, "waiting_for_memory", message, position, eta_s
        )
        self.send(job.waiting)

    def send(self, message: Any) -> None:
        self.run(lambda: self._send(message))

    def cut(self) -> None:
        self.run(self._cut)

    def write(self, data: bytes) -> None:
        """Bytes past the frames."""
        assert self._transport is not None
        self.run(partial(self._transport.write, data))

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    # The stream.

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send(front_protocol.HandlersUpdate(HANDLERS, False))

    def data_received(self, data: bytes) -> None:
        for frame in self._buffer.feed(data):
            for encoded in framing.unpack(frame):
                message = front_protocol.to_coordinator_decoder.decode(encoded)
                self.asked.append(message)
                answer = getattr(self, "_" + type(message).__name__.lower())
                answer(message)
        with self._heard:
            self._heard.notify_all()

    def _send(self, message: Any) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(front_protocol.encode(message))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(framing.with_length(framing.pack(out)))

    def _emit(self, job: FakeJob, burst: list[tuple[str, dict[str, Any]]]) -> None:
        fresh: list[tuple[int, str, bytes]] = []
        for kind, fields in burst:
            seq = len(job.events) + len(fresh) + 1
            data = msgspec.json.encode({"job_id": job.id, "seq": seq, "at": "now", **fields})
            fresh.append((seq, kind, data))
        job.events += fresh
        if self.feeding and job.id in self.watched:
            self._send(front_protocol.JobEvents(job.id, fresh, job.ended))

    def _finish(self, job: FakeJob, state: str, output: bytes) -> None:
        job.state, job.output = state, output
        self._emit(job, [("done", {"state": state})])
        for rid in job.waiters:
            self._send(front_protocol.Reply(rid, 200, job.document()))
        job.waiters.clear()

    # Answers.

    def _fronthello(self, hello: front_protocol.FrontHello) -> None:
        self.hello.set()

    def _submitjobs(self, ask: front_protocol.SubmitJobs) -> None:
        problem = self.replies.get("submit")
        if problem is not None:
            self._send(msgspec.structs.replace(problem, request_id=ask.request_id))
            return
        jobs = [self._accept(asked) for asked in ask.jobs]
        if ask.bulk:
            fates = [None if job.handler != "slow" else {"code": "queue_full", "status": 429} for job in jobs]
            self._send(front_protocol.Reply(ask.request_id, 202, msgspec.json.encode(fates)))
        elif ask.wait_s and not jobs[0].ended:
            jobs[0].waiters.append(ask.request_id)
            self._loop.call_later(ask.wait_s, self._late, ask.request_id, jobs[0])
        else:
            self._send(front_protocol.Reply(ask.request_id, 200 if ask.wait_s else 202, jobs[0].document()))

    def _late(self, rid: int, job: FakeJob) -> None:
        if rid in job.waiters:
            job.waiters.remove(rid)
            self._send(front_protocol.Reply(rid, 202, job.document()))

    def _accept(self, asked: Submission) -> FakeJob:
        job = self.jobs[asked.id] = FakeJob(asked.id, asked.handler, asked.input)
        if asked.handler == "echo":
            job.state, job.output = "succeeded", asked.input
        return job

    def _known(self, rid: int, job_id: str) -> FakeJob | None:
        job = self.jobs.get(job_id)
        if job is None:
            body = msgspec.json.encode(
                {"code": "not_found", "title": "Not found", "detail": f"no job {job_id}"}
            )
            self._send(front_protocol.Reply(rid, 404, body))
        return job

    def _getjob(self, ask: front_protocol.GetJob) -> None:
        job = self._known(ask.request_id, ask.job_id)
        if job is not None and ask.wait_s and not job.ended:
            job.waiters.append(ask.request_id)
        elif job is not None:
            self._send(front_protocol.Reply(ask.request_id, 200, job.document()))

    def _listjobs(self, ask: front_protocol.ListJobs) -> None:
        rows = b",".join(job.document() for job in self.jobs.values())
        self._send(front_protocol.Reply(ask.request_id, 200, b'{"data":[%s],"next_cursor":null}' % rows))

    def _jobaction(self, ask: front_protocol.JobAction) -> None:
        job = self._known(ask.request_id, ask.job_id)
        if job is None:
            return
        if ask.action == "delete":
            del self.jobs[job.id]
            self._send(front_protocol.Reply(ask.request_id, 204))
        else:
            self._send(front_protocol.Reply(ask.request_id, 202, job.document()))

    def _getdocument(self, ask: front_protocol.GetDocument) -> None:
        given = self.replies.get(ask.document)
        if given is not None:
            self._send(msgspec.structs.replace(given, request_id=ask.request_id))
            return
        body = {"what": ask.document, "subject": ask.subject}
        self._send(front_protocol.Reply(ask.request_id, 200, msgspec.json.encode(body)))

    def _setqueue(self, ask: front_protocol.SetQueue) -> None:
        self._send(
            front_protocol.Reply(
                ask.request_id, 200, msgspec.json.encode({"name": ask.name, "paused": ask.paused})
            )
        )

    def _setdevice(self, ask: front_protocol.SetDevice) -> None:
        body = {"device": ask.device, "drained": ask.drained, "max_executors": ask.max_executors}
        self._send(front_protocol.Reply(ask.request_id, 200, msgspec.json.encode(body)))

    def _reloadhandlers(self, ask: front_protocol.ReloadHandlers) -> None:
        reply = self.replies.get("reload", front_protocol.Reply(0, 200, b'{"changed":["echo"]}'))
        self._send(front_protocol.Reply(ask.request_id, reply.status, reply.body))

    def _loadhandler(self, ask: front_protocol.LoadHandler) -> None:
        reply = self.replies.get("load", front_protocol.Reply(0, 202, b'{"state":"loading"}'))
        self._send(front_protocol.Reply(ask.request_id, reply.status, reply.body))

    def _unloadhandler(self, ask: front_protocol.UnloadHandler) -> None:
        self._send(front_protocol.Reply(ask.request_id, 202, b'{"executors":[]}'))

    def _awaithandler(self, ask: front_protocol.AwaitHandler) -> None:
        self._send(front_protocol.Reply(ask.request_id, 200))

    def _readevents(self, ask: front_protocol.ReadEvents) -> None:
        job = self._known(ask.request_id, ask.job_id)
        if job is None:
            return
        meanwhile = self.before_page.pop(job.id, None)
        if meanwhile is not None:
            meanwhile(job)
        rows: list[tuple[int, str, bytes]] = []
        size = 0
        for row in job.events[max(ask.after, job.first_seq - 1) :]:
            if not ask.max_bytes or (rows and size + len(row[2]) > ask.max_bytes):
                break
            rows.append(row)
            size += len(row[2])
        page = front_protocol.EventPage(
            ask.request_id, job.document(), rows, job.first_seq, len(job.events), job.ended, job.waiting
        )
        self._send(page)

    def _subscribeevents(self, ask: front_protocol.SubscribeEvents) -> None:
        self.watched.add(ask.job_id)

    def _unsubscribeevents(self, ask: front_protocol.UnsubscribeEvents) -> None:
        self.watched.discard(ask.job_id)


@dataclass
class RunningFront:
    """A real front process and the fake behind it."""

    fake: FakeCoordinator
    child: Child
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@contextmanager
def running_front(token: str = "", *, tree: Path | None = None, **settings: Any) -> Iterator[RunningFront]:
    """A front on a free port; ends with the block. `tree` is a copy of the program to run instead."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    ours, theirs = socket.socketpair()
    port = listening.getsockname()[1]
    given: dict[str, Any] = {
        "allow_hosts": [],
        "allow_origins": [],
        "token_sha256": hashlib.sha256(token.encode()).digest() if token else b"",
        "ticket_key": b"sealed with this",
        "body_max_bytes": 1024 * 1024,
        "bulk_max_bytes": 8 * 1024 * 1024,
        "depth_max": 64,
        "version": "0.0.0",
        "log_level": "warning",
    }
    config = FrontConfig([listening.fileno()], theirs.fileno(), "127.0.0.1", port, **(given | settings))
    fake = FakeCoordinator()
    fake.attach(ours)
    env = {**os.environ, "TMPDIR": tempfile.gettempdir()}
    if tree is not None:
        env["PYTHONPATH"] = str(tree)
    child = start_child("front", config, pass_fds=(listening.fileno(), theirs.fileno()), env=env)
    listening.close()
    theirs.close()
    try:
        assert fake.hello.wait(20), "the front did not start"
        yield RunningFront(fake, child, port)
    finally:
        child.close()
        try:
            child.process.wait(10)
        finally:
            child.process.kill()
            child.process.wait()
            fake.close()

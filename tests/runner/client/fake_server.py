"""Effect: a server of real sockets that answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@dataclass
class RecordedRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class CannedReply:
    status: int = 200
    #: A JSON value; bytes go out as they are; a list of bytes is a stream.
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    #: Break the connection after the body instead of ending it in order.
    cut: bool = False


#: What a route answers: always the same, or one after another (the last one repeats), or by question.
Script = CannedReply | list[CannedReply] | Callable[[RecordedRequest], CannedReply]


@dataclass
class FakeServer:
    url: str
    routes: dict[tuple[str, str], Script]
    asked: list[RecordedRequest] = field(default_factory=list)

    def answer(self, asked: RecordedRequest) -> CannedReply:
        self.asked.append(asked)
        path = asked.path.partition("?")[0]
        script = self.routes.get((asked.method, path))
        if script is None:
            return problem(404, "not_found", f"there is no {path}")
        if isinstance(script, list):
            return script.pop(0) if len(script) > 1 else script[0]
        return script if isinstance(script, CannedReply) else script(asked)


def job(state: str = "succeeded", **fields: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": ID,
        "handler": "echo",
        "queue": "default",
        "state": state,
        "reason": None,
        "priority": 50,
        "input": {},
        "input_bytes": 2,
        "output": None,
        "output_bytes": None,
        "error": None,
        "progress": None,
        "attempt": 1,
        "retries_left": 0,
        "devices": ["cpu"],
        "tags": [],
        "metadata": {},
        "created_at": "2026-01-31T09:05:00.250Z",
        "ready_at": "2026-01-31T09:05:00.250Z",
        "started_at": "2026-01-31T09:05:01.000Z",
        "finished_at": "2026-01-31T09:05:02.000Z",
    }
    return document | fields


def problem(status: int, code: str, detail: str, **more: Any) -> CannedReply:
    body = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, **more}
    return CannedReply(status, body, {"Content-Type": "application/problem+json"})


def frame(name: str, seq: int | None = None, **data: Any) -> bytes:
    head = f"id: {seq}\r\n" if seq is not None else ""
    data = {"job_id": ID, "seq": seq, "at": "2026-01-31T09:05:00.250Z", **data}
    return f"{head}event: {name}\r\ndata: {json.dumps(data)}\r\n\r\n".encode()


def stream(*frames: bytes, cut: bool = False) -> CannedReply:
    first = b"retry: 2000\r\n" + frame("snapshot", **job("running"))
    return CannedReply(200, [first, *frames], {"Content-Type": "text/event-stream"}, cut)


@contextmanager
def fake_server(routes: dict[tuple[str, str], Script]) -> Iterator[FakeServer]:
    """A running server; `("POST", "/v1/jobs")` and the like say what it answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = RecordedRequest(self.command, self.path, headers, json.loads(text) if text else None)
            self.send(fake.answer(asked))

        do_GET = do_POST = do_PATCH = do_DELETE = handle_one

        def send(self, reply: CannedReply) -> None:
            chunks = reply.body if isinstance(reply.body, list) and reply.body[:1] else None
            is_stream = chunks is not None and isinstance(chunks[0], bytes)
            self.send_response(reply.status)
            for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                self.send_header(name, value)
            if is_stream and chunks is not None:
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Connection", "close")
                self.end_headers()
                for chunk in chunks:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                if not reply.cut:
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True
                return
            body = b"" if reply.body is None else reply.body
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake = FakeServer(f"http://127.0.0.1:{server.server_port}", routes)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""Effect: the plainest durable accept over HTTP: one fsync per job; `python -m benchmarks.plain DB FD`.

One process, a bare ASGI callable under uvicorn with runner's own loop and parser. Each POST decodes the JSON,
inserts one row in a transaction of its own (WAL, synchronous=FULL, a statement that stays prepared) and
answers 202 with the id. Nothing is validated, queued or run: it is what a durable accept costs at least.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
import uvicorn

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SCHEMA = "CREATE TABLE job (id INTEGER PRIMARY KEY, handler TEXT NOT NULL, input BLOB NOT NULL)"
INSERT = "INSERT INTO job (handler, input) VALUES (?, ?)"
_encode = msgspec.json.Encoder().encode


class Job(msgspec.Struct):
    handler: str
    input: msgspec.Raw


class Table:
    """A durable table of jobs."""

    def __init__(self, path: Path) -> None:
        self._database = apsw.Connection(str(path))
        self._database.pragma("journal_mode", "wal")
        self._database.pragma("synchronous", "full")
        self._database.execute(SCHEMA)

    def insert(self, handler: str, input_: bytes) -> int:
        """Durable when it returns; the row's id."""
        self._database.execute(INSERT, (handler, input_))
        return self._database.last_insert_rowid()

    def close(self) -> None:
        self._database.close()


class Accept:
    """The ASGI callable."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._decode = msgspec.json.Decoder(Job).decode

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one POST; the benchmark sends nothing else."""
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        job = self._decode(body)
        answer = _encode({"id": self._table.insert(job.handler, bytes(job.input))})
        length = (b"content-length", str(len(answer)).encode())
        headers = [(b"content-type", b"application/json"), length]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def main() -> None:
    """Serve on the inherited socket until a signal ends the process."""
    path, fd = Path(sys.argv[1]), int(sys.argv[2])
    config = uvicorn.Config(
        Accept(Table(path)),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # As runner's: between two rounds its connection is silent for longer than uvicorn's own 5 s.
        timeout_keep_alive=75,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    main()

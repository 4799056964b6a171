"""Effect: the writer process: reads batches from a stream, commits them and replies when they are durable.

SQLite takes the interpreter's lock again after every step. Beside the coordinator's busy loop this made a
commit hundreds of times slower, so commits have a process of their own. The writer exits when its stream or
its lifeline ends.
"""

from __future__ import annotations

import logging
import select
import socket
import sys
import threading
from collections.abc import Callable

from runner.errors import RefusedStart, RunnerError
from runner.processes import logs
from runner.processes.child import WriterConfig, ignore_terminal_signals, read_config, send_beats
from runner.protocol.framing import LENGTH
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.sqlite.writer_protocol import (
    Request,
    SaveCopy,
    TakeEpoch,
    WriterReply,
    encode_frame,
    error_reply,
    request_decoder,
)
from runner.stores.url import sqlite_path

log = logging.getLogger(__name__)


class StoreWriter:
    """Server of the one stream from the coordinator: a request is answered before the next one is read."""

    def __init__(self, store: SqliteStore, stream: socket.socket, lifeline: socket.socket) -> None:
        self._store = store
        self._stream = stream
        self._lifeline = lifeline
        self._poller = select.poll()
        for end in (stream, lifeline):
            self._poller.register(end, select.POLLIN)

    def run(self) -> None:
        """Serve until the stream or the lifeline ends; a commit under way is finished."""
        while self._wait_for_request():
            length = self._read_exactly(LENGTH.size)
            if length is None:
                return
            body = self._read_exactly(LENGTH.unpack(length)[0])
            if body is None:
                return
            reply = self._handle_request(request_decoder.decode(body))
            try:
                self._stream.sendall(encode_frame(reply))
            except (BrokenPipeError, ConnectionResetError):
                return
            self._checkpoint()

    def _wait_for_request(self) -> bool:
        """Wait for a request; return False at the end of the lifeline, on which nothing else comes."""
        ready = {fd for fd, _ in self._poller.poll()}
        return self._lifeline.fileno() not in ready

    def _handle_request(self, request: Request) -> WriterReply:
        """Carry out a request; the reply carries an error of the store back to the coordinator."""
        try:
            if isinstance(request, TakeEpoch):
                return WriterReply(value=self._store.take_epoch())
            if isinstance(request, SaveCopy):
                self._store.save_copy(request.path)
                return WriterReply()
            self._store.commit(request.epoch, request.batch)
        except RunnerError as error:
            return error_reply(error)
        return WriterReply(value=self._store.stale_updates)

    def _checkpoint(self) -> None:
        """Copy the write-ahead log into the file if due, between the reply and the next request."""
        try:
            self._store.checkpoint_if_due()
        except RunnerError as error:
            # Nothing is lost: the log still holds all commits, and the next commit meets the same error and
            # reports it to the coordinator.
            log.error("copying the write-ahead log into the file failed: %s", error)

    def _read_exactly(self, size: int) -> bytearray | None:
        """Read `size` bytes; return None if the stream ends before."""
        data = bytearray(size)
        view = memoryview(data)
        position = 0
        while position < size:
            received = self._stream.recv_into(view[position:])
            if not received:
                return None
            position += received
        return data


def _make_pause(stream: socket.socket, lifeline: socket.socket) -> Callable[[float], bool]:
    """Return a pause for `SqliteConnection` that ends, with True, when the coordinator is gone."""
    ends = select.poll()
    ends.register(lifeline, select.POLLIN)
    # Pending requests make the stream readable: only its end counts here.
    ends.register(stream, select.POLLRDHUP)
    return lambda seconds: bool(ends.poll(seconds * 1000))


def main() -> None:
    """Run the writer process."""
    ignore_terminal_signals()
    config, lifeline = read_config(int(sys.argv[sys.argv.index("--lifeline") + 1]), WriterConfig)
    logs.configure(config.log_format, config.log_level, "writer")
    path = sqlite_path(config.url)
    if path is None:
        raise RefusedStart("a memory store has no writer process")
    threading.Thread(target=send_beats, args=(lifeline,), name="beats", daemon=True).start()
    stream = socket.socket(fileno=config.fd)
    store = SqliteStore(path, pause=_make_pause(stream, lifeline))
    try:
        StoreWriter(store, stream, lifeline).run()
    finally:
        store.close()


if __name__ == "__main__":
    main()

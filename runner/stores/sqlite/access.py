"""Effect: access of an event loop to the store: a writer process commits, threads of this one read."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol, TypeVar, cast

from runner.errors import RunnerError, StoreUnavailable, Unavailable
from runner.jobs.job_query import JobQuery
from runner.processes import child as child_processes
from runner.processes.pulse import PING_INTERVAL_S, Pulse
from runner.processes.restart_backoff import RestartBackoff
from runner.protocol.framing import FrameBuffer
from runner.stores.damaged_row import DamagedRow
from runner.stores.memory import MemoryStore
from runner.stores.sqlite.sqlite_connection import sqlite_version
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.sqlite.writer_protocol import (
    Commit,
    Request,
    SaveCopy,
    TakeEpoch,
    WriterReply,
    encode_frame,
    reply_decoder,
    reply_value,
)
from runner.stores.store import SearchPage, Store, WriteBatch

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Bounds on one search in inputs: jobs and seconds; on one that stops the event loop; on those that wait.
SEARCH_ROWS_MAX = 1_000_000
SEARCH_S = 2.0
_MEMORY_SEARCH_S = 0.05
SEARCHES_MAX = 10
#: Requested size of the send buffer to the writer.
_SEND_BUFFER_BYTES = 1024 * 1024
#: Longest wait for the writer to exit: it may be copying its write-ahead log into the file.
EXIT_TIMEOUT_S = 10.0
#: Longest wait for a killed writer; one in an uninterruptible system call does not exit.
_KILL_TIMEOUT_S = 0.5
#: Shortest and longest pause before another start, after a writer that answered nothing.
_RESTART_PAUSES_S = (0.2, 5.0)


class StoreAccess(Protocol):
    """A store as the event loop of a coordinator uses it; errors are those of `Store`."""

    kind: Literal["sqlite", "memory"]
    #: Set while the writer process has died unexpectedly; later commits start another one.
    writer_died: asyncio.Event

    @property
    def stale_updates(self) -> int:
        """Return the number of updates dropped because a later attempt was stored already."""

    async def take_epoch(self) -> int:
        """See `Store.take_epoch`; must be called before everything else."""

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        """Commit the batch; return when it is durable.

        Batches are committed in the order of the calls, each as it is at the call: later changes to its jobs,
        while the commit waits, are not written.

        Raises:
            StoreUnavailable: nothing of the batch is stored; or the writer died (`writer_died` is set), and
                whether the batch is stored stays unknown until the next start. While no writer can be
                started, later commits try again, with pauses between the starts.
        """

    async def run_read(self, read: Callable[[Store], T]) -> T:
        """Run `read` on a reading store and return its result.

        `read` runs in another thread. It must not keep the store, nor return an iterator that still reads.
        """

    @property
    def is_writer_answering(self) -> bool:
        """Whether the writer process runs and shows signs of life; a writer that waits for its disk does."""

    async def run_urgent_read(self, read: Callable[[Store], T]) -> T:
        """Run a read that jobs need to start, without waiting for a `run_read`, which may take long."""

    async def search_jobs(self, query: JobQuery) -> SearchPage:
        """Search in the inputs of jobs, for a bounded time; no other read waits for a search.

        Raises:
            Unavailable: too many searches wait.
        """

    def connect(self, on_damaged: Callable[[Sequence[DamagedRow]], None]) -> None:
        """Call `on_damaged` with the damaged jobs that reads found, now and before each read returns."""

    async def save_copy(self, suffix: str) -> str:
        """Write all that was committed to a new file beside the store's; return its path.

        Raises:
            StoreUnavailable: it can't be written; or the store has no file.
        """

    def describe(self) -> str:
        """Return the kind of the store, for clients: without its place."""

    def describe_place(self) -> str:
        """Return the kind and the place of the store, for the operator."""

    async def close(self, exit_timeout_s: float = EXIT_TIMEOUT_S) -> None:
        """Finish pending requests and stop the writer process; kill it if that takes longer than this."""


class MemoryAccess:
    """A `StoreAccess` to a store in memory: every call runs at once, on the event loop."""

    kind: Literal["sqlite", "memory"] = "memory"

    def __init__(self) -> None:
        self.writer_died = asyncio.Event()
        #: Jobs that one search looks at.
        self.search_rows_max = SEARCH_ROWS_MAX
        self._store = MemoryStore()

    @property
    def stale_updates(self) -> int:
        """See `StoreAccess.stale_updates`."""
        return self._store.stale_updates

    @property
    def is_writer_answering(self) -> bool:
        """See `StoreAccess.is_writer_answering`."""
        return True

    async def take_epoch(self) -> int:
        """See `StoreAccess.take_epoch`."""
        return self._store.take_epoch()

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        """See `StoreAccess.commit`."""
        self._store.commit(epoch, batch)

    async def run_read(self, read: Callable[[Store], T]) -> T:
        """See `StoreAccess.run_read`."""
        return read(self._store)

    async def run_urgent_read(self, read: Callable[[Store], T]) -> T:
        """See `StoreAccess.run_urgent_read`."""
        return read(self._store)

    async def search_jobs(self, query: JobQuery) -> SearchPage:
        """See `StoreAccess.search_jobs`; the event loop stands still meanwhile, so the search is short."""
        return self._store.search_jobs(query, rows_max=self.search_rows_max, limit_s=_MEMORY_SEARCH_S)

    def connect(self, on_damaged: Callable[[Sequence[DamagedRow]], None]) -> None:
        """Do nothing: nothing in memory is damaged."""

    async def save_copy(self, suffix: str) -> str:
        """See `StoreAccess.save_copy`."""
        raise StoreUnavailable("a store in memory has no file")

    def describe(self) -> str:
        """See `StoreAccess.describe`."""
        return "memory (jobs are lost when the server ends)"

    def describe_place(self) -> str:
        """See `StoreAccess.describe_place`."""
        return self.describe()

    async def close(self, exit_timeout_s: float = EXIT_TIMEOUT_S) -> None:
        """Do nothing: no resource is held."""


class SqliteAccess:
    """A `StoreAccess` to a SQLite file: a writer process, and three reading connections, each in a thread.

    A writer that hangs is killed, see `Pulse`, but not one whose commit takes long, as with a slow disk. A
    writer that dies is replaced at the next request or within a second, after a pause if it had answered
    nothing.
    """

    kind: Literal["sqlite", "memory"] = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer_died = asyncio.Event()
        self.stale_updates = 0
        self._read_connection = _ReadConnection(path, "store-reader")
        self._urgent_read_connection = _ReadConnection(path, "store-fetcher")
        self._search_connection = _ReadConnection(path, "store-searcher")
        self._searches_count = 0
        self._child: child_processes.Child | None = None
        self._writer_connection: _WriterConnection | None = None
        #: Held while a request is sent, so that requests keep their order while a writer is replaced.
        self._send_lock = asyncio.Lock()
        self._backoff = RestartBackoff(first_pause_s=_RESTART_PAUSES_S[0], max_pause_s=_RESTART_PAUSES_S[1])
        self._is_open = False
        #: Damaged jobs that reads have found before `connect`.
        self._damaged: list[DamagedRow] = []
        self._on_damaged: Callable[[Sequence[DamagedRow]], None] | None = None
        self._pulse = Pulse()
        #: Whether the writer has shown a sign of life since its start.
        self._has_beaten = False
        self._check_timer: asyncio.TimerHandle | None = None
        #: Replaces a writer for which no request waits.
        self._replacing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the writer process; it opens the file at `take_epoch`."""
        await self._start_writer()
        self._is_open = True
        self._check_each_second()

    @property
    def is_writer_answering(self) -> bool:
        """See `StoreAccess.is_writer_answering`."""
        return not self.writer_died.is_set() and not self._pulse.is_late

    def _check_each_second(self) -> None:
        loop = asyncio.get_running_loop()
        self._check_timer = loop.call_later(PING_INTERVAL_S, self._check_each_second)
        self.check_writer()

    def check_writer(self) -> None:
        """Kill a writer that hangs; replace one that has died. Called every `PING_INTERVAL_S`."""
        loop = asyncio.get_running_loop()
        if self.writer_died.is_set():
            if self._replacing is None or self._replacing.done():
                self._replacing = loop.create_task(self._replace_dead_writer())
            return
        if self._child is None:
            return
        if self._child.has_beaten():
            self._has_beaten = True
            self._pulse.record_sign_of_life()
        activity = self._child.read_activity()
        if self._pulse.record_ping(loop.time(), activity, is_ready=self._has_beaten):
            silent_s = self._pulse.unanswered_pings * PING_INTERVAL_S
            log.error("the store's writer process has been silent for %g s: it is replaced", silent_s)
            self._child.signal(signal.SIGKILL)

    async def _replace_dead_writer(self) -> None:
        async with self._send_lock:
            if self._is_open and self.writer_died.is_set():
                try:
                    await self._replace_writer()
                except StoreUnavailable as refused:
                    # Tried again in a second.
                    log.debug("%s", refused.message)

    async def _start_writer(self) -> None:
        self._pulse, self._has_beaten = Pulse(), False
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                config = child_processes.WriterConfig(url=f"sqlite:///{self.path}", fd=theirs.fileno())
                self._child = child_processes.start_child("writer", config, pass_fds=(theirs.fileno(),))
            ours.setblocking(False)
            # A batch that does not fit at once waits for later iterations. The kernel may grant less.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            loop = asyncio.get_running_loop()
            _, self._writer_connection = await loop.create_connection(
                lambda: _WriterConnection(self.writer_died), sock=ours
            )
        except BaseException:
            ours.close()
            raise

    async def _replace_writer(self) -> None:
        """Start another writer in place of one that has died.

        Raises:
            StoreUnavailable: it can't be started, or the pause after the last start is not over.
        """
        loop = asyncio.get_running_loop()
        if self._backoff.is_pausing(loop.time()):
            raise StoreUnavailable("the store's writer process has ended and will be restarted soon")
        if self._child is not None:
            log.error("the store's writer process has ended and is restarted")
            if not await _wait_for_exit(self._child, EXIT_TIMEOUT_S):
                raise StoreUnavailable("the store's writer process has survived SIGKILL; it may still write")
        self._writer_connection = self._child = None
        self._backoff.begin_pause(loop.time())
        # Cleared before the start, as a new writer may die at once.
        self.writer_died.clear()
        try:
            await self._start_writer()
        except OSError as error:
            # Descriptors, processes or memory have run out, which may be temporary.
            log.error("the store's writer process cannot be started: %s", error)
            raise StoreUnavailable(f"the store's writer process cannot be started: {error}") from error
        finally:
            if self._writer_connection is None:
                self.writer_died.set()

    async def take_epoch(self) -> int:
        """See `StoreAccess.take_epoch`."""
        return await self._send_request(TakeEpoch())

    async def commit(self, epoch: int, batch: WriteBatch) -> None:
        """See `StoreAccess.commit`.

        A writer that has died is replaced first: the epoch stays valid, and a batch whose outcome is unknown
        may be committed again.
        """
        with self._hide_folder():
            self.stale_updates = await self._send_request(Commit(epoch, batch))

    async def run_read(self, read: Callable[[Store], T]) -> T:
        """See `StoreAccess.run_read`."""
        with self._hide_folder():
            return await self._run_read(self._read_connection, read)

    async def run_urgent_read(self, read: Callable[[Store], T]) -> T:
        """See `StoreAccess.run_urgent_read`."""
        with self._hide_folder():
            return await self._run_read(self._urgent_read_connection, read)

    @contextmanager
    def _hide_folder(self) -> Iterator[None]:
        """Take the folder of the file out of the message of an error, which clients read.

        At `take_epoch` the message keeps it: the operator who starts the server reads that one.
        """
        try:
            yield
        except RunnerError as error:
            error.message = error.message.replace(f"{self.path.parent}/", "")
            error.args = (error.message,)
            raise

    async def search_jobs(self, query: JobQuery) -> SearchPage:
        """See `StoreAccess.search_jobs`."""
        if self._searches_count >= SEARCHES_MAX:
            raise Unavailable("too many lists search in inputs; try again later", retry_after_s=2)
        self._searches_count += 1
        try:
            with self._hide_folder():
                return await self._run_read(
                    self._search_connection,
                    lambda store: store.search_jobs(query, rows_max=SEARCH_ROWS_MAX, limit_s=SEARCH_S),
                )
        finally:
            self._searches_count -= 1

    def connect(self, on_damaged: Callable[[Sequence[DamagedRow]], None]) -> None:
        """See `StoreAccess.connect`."""
        self._on_damaged = on_damaged
        self._report_damaged()

    async def _run_read(self, connection: _ReadConnection, read: Callable[[Store], T]) -> T:
        try:
            return await connection.run(read)
        finally:
            if connection.damaged:
                self._damaged += connection.damaged
                connection.damaged = []
                self._report_damaged()

    def _report_damaged(self) -> None:
        if self._damaged and self._on_damaged is not None:
            damaged, self._damaged = self._damaged, []
            self._on_damaged(damaged)

    async def save_copy(self, suffix: str) -> str:
        """See `StoreAccess.save_copy`."""
        path = f"{self.path}.{suffix}"
        await self._send_request(SaveCopy(path))
        return path

    def describe(self) -> str:
        """See `StoreAccess.describe`."""
        return f"SQLite {sqlite_version()} (write-ahead log, every commit synced)"

    def describe_place(self) -> str:
        """See `StoreAccess.describe_place`."""
        return f"SQLite {sqlite_version()} at {self.path} (write-ahead log, every commit synced)"

    async def close(self, exit_timeout_s: float = EXIT_TIMEOUT_S) -> None:
        """See `StoreAccess.close`."""
        if self._send_lock.locked() and self._child is not None:
            # The replacement of a writer waits for the exit of the old one.
            self._child.signal(signal.SIGKILL)
        # The lock waits for a replacement under way; later commits are refused.
        async with self._send_lock:
            if not self._is_open:
                return
            self._is_open = False
            if self._check_timer is not None:
                self._check_timer.cancel()
            # The reading connections first: the last connection to close copies the log into the file, which
            # must be the writer's.
            await self._read_connection.close()
            await self._urgent_read_connection.close()
            await self._search_connection.close()
            if self._writer_connection is not None:
                self._writer_connection.close()
            # None while no writer can be started.
            if self._child is not None:
                await _wait_for_exit(self._child, exit_timeout_s)
            self._writer_connection = self._child = None

    async def _send_request(self, request: Request) -> int:
        # Encoded before any await: a batch holds live jobs, which change while a writer is replaced. Encoded
        # later, a job could be stored as ended without its output and events, which are in the next batch.
        frame = encode_frame(request)
        async with self._send_lock:
            if self._is_open and self.writer_died.is_set():
                await self._replace_writer()
            if self._writer_connection is None:
                raise StoreUnavailable(f"{self.path}: the store is not open")
            reply_future = self._writer_connection.send_request(frame)
        reply = await reply_future
        self._backoff.reset()
        return reply_value(reply)


class _ReadConnection:
    """A reading connection to the file, and the one thread that uses it."""

    def __init__(self, path: Path, name: str) -> None:
        self._store = SqliteStore(str(path), read_only=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        #: Damaged jobs that reads have found; the event loop takes them away.
        self.damaged: list[DamagedRow] = []

    async def run(self, read: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, read)

    def _read(self, read: Callable[[Store], T]) -> T:
        try:
            return read(self._store)
        finally:
            self.damaged += self._store.take_damaged()

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()


class _WriterConnection(asyncio.Protocol):
    """The stream to the writer, which replies in the order of the requests."""

    def __init__(self, writer_died: asyncio.Event) -> None:
        self._writer_died = writer_died
        self._is_closing = False
        self._buffer = FrameBuffer()
        self._pending_replies: deque[asyncio.Future[WriterReply]] = deque()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def send_request(self, frame: bytearray) -> asyncio.Future[WriterReply]:
        if self._transport is None or self._is_closing:
            raise _writer_ended_error()
        reply: asyncio.Future[WriterReply] = asyncio.get_running_loop().create_future()
        self._transport.write(frame)
        self._pending_replies.append(reply)
        return reply

    def data_received(self, data: bytes) -> None:
        for frame in self._buffer.feed(data):
            reply = self._pending_replies.popleft()
            # The entry of a cancelled task is still in the queue, and its reply comes too.
            if not reply.done():
                reply.set_result(reply_decoder.decode(frame))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._is_closing:
            self._writer_died.set()
        for reply in self._pending_replies:
            if not reply.done():
                reply.set_exception(_writer_ended_error())
        self._pending_replies.clear()

    def close(self) -> None:
        self._is_closing = True
        if self._transport is not None:
            self._transport.close()


def _writer_ended_error() -> StoreUnavailable:
    return StoreUnavailable(
        "the store's writer process has ended; whether a batch under way is stored is unknown"
    )


async def _wait_for_exit(child: child_processes.Child, timeout_s: float) -> bool:
    """Wait until the child has exited, reap it and close it; kill it after `timeout_s`.

    Return False, and leave it as it is, if it does not exit after SIGKILL.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(child.pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), timeout_s)
    except TimeoutError:
        log.warning("the store's writer process did not exit within %.1f s: it is killed", timeout_s)
        child.signal(signal.SIGKILL)
        try:
            await asyncio.wait_for(ended.wait(), _KILL_TIMEOUT_S)
        except TimeoutError:
            log.error("the store's writer process %d survived SIGKILL", child.pid)
            return False
    finally:
        loop.remove_reader(child.pidfd)
    child.reap()
    child.close()
    return True

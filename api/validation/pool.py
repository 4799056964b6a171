"""Effect: a pool of processes in which a front validates inputs, each killed when it takes too long."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

from api.validation.messages import Begun, Checked, CheckInput, decode_reply, encode_frame
from runner.errors import Unavailable, ValidationTimeout
from runner.processes.child import Child, ValidatorConfig, start_child
from runner.protocol.framing import LENGTH

logger = logging.getLogger(__name__)

#: Processes at once.
PROCESSES_MAX = 2
#: Requests that are validated or wait for it; beyond it clients get 503 and retry later.
PENDING_MAX = 64
#: Longest validation of one input, in seconds.
INPUT_LIMIT_S = 1.0
#: Longest start of a process, transfer and decoding of an input, in seconds.
TRANSFER_LIMIT_S = 20.0
#: A process without requests for this long, in seconds, is ended: it keeps the memory of its largest input.
IDLE_S = 60.0
#: Inputs up to this size, times the visits of each value, have their faults searched for inline: a fault
#: takes 15 us, and may be in every second byte.
INLINE_FAULTS_MAX_BYTES = 4 * 1024
#: The sum of these sizes in one request.
INLINE_FAULTS_BYTES_MAX = 32 * 1024


class RequestValidation:
    """The validation of all inputs of one request, whose work is bounded as a whole."""

    def __init__(self, pool: ValidatorPool, limit_s: float) -> None:
        """`limit_s` bounds the validation in processes."""
        self._pool = pool
        self._left_s = limit_s
        self._inline_bytes_left: float = INLINE_FAULTS_BYTES_MAX

    def take_inline(self, size_bytes: float) -> bool:
        """Return whether the faults of an input of this size may be searched for in the front itself.

        The size is multiplied by the visits of each value, and infinite if these are unbounded.
        """
        if size_bytes > min(self._inline_bytes_left, INLINE_FAULTS_MAX_BYTES):  # guard: slow-faults-elsewhere
            return False
        self._inline_bytes_left -= size_bytes
        return True

    async def check(self, request: CheckInput) -> Checked:
        """Return what a process finds in an input.

        Raises:
            ValidationTimeout: the time of the input or of the whole request was not enough.
            Unavailable: see `ValidatorPool.check`.
        """
        limit_s = min(self._left_s, self._pool.input_limit_s)
        try:
            found = await self._pool.check(request, limit_s)
        except ValidationTimeout:
            self._left_s -= limit_s
            raise
        self._left_s -= found.elapsed_s
        return found


class ValidatorPool:
    """Starts processes when inputs need them; each validates one input at a time."""

    def __init__(self, *, input_limit_s: float = INPUT_LIMIT_S, idle_s: float = IDLE_S) -> None:
        #: Longest validation of one input, in seconds.
        self.input_limit_s = input_limit_s
        self._idle_s = idle_s
        self._places = asyncio.Semaphore(PROCESSES_MAX)
        self._pending_count = 0
        self._processes: set[_Process] = set()
        self._idle: list[_Process] = []
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def pids(self) -> list[int]:
        """Return the ids of the processes that run."""
        return [process.pid for process in self._processes]

    async def check(self, request: CheckInput, limit_s: float) -> Checked:
        """Return what a process finds in an input, whose validation takes at most `limit_s`.

        Waiting for a free process, the transfer and the parsing of the input do not count.

        Raises:
            ValidationTimeout: the time was not enough.
            Unavailable: too many inputs wait, or no process could be started or finish.
        """
        if limit_s <= 0:
            raise ValidationTimeout("the inputs of this request could not be validated in time")
        if self._pending_count >= PENDING_MAX:
            raise Unavailable("too many inputs wait for validation; try again later", retry_after_s=1)
        self._pending_count += 1
        try:
            async with self._places:
                return await self._check(request, limit_s)
        finally:
            self._pending_count -= 1

    def close(self) -> None:
        """Kill all processes; later requests fail."""
        self._is_closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle.clear()
        for process in list(self._processes):
            process.kill()

    async def _check(self, request: CheckInput, limit_s: float) -> Checked:
        process = self._idle.pop() if self._idle else await self._start()
        try:
            answer = await process.check(request, limit_s)
        except BaseException:
            # Also where the request was cancelled: the process would go on with its input.
            process.kill()
            raise
        if not self._is_closed and process in self._processes:
            self._idle.append(process)
            self._restart_idle_timer()
        return answer

    async def _start(self) -> _Process:
        if self._is_closed:
            raise Unavailable("this server is shutting down", retry_after_s=2)
        try:
            process = await _Process.start(self._forget)
        except OSError as error:
            logger.error("cannot start a process to validate an input: %s", error)
            raise Unavailable(f"no process can be started: {error}", retry_after_s=2) from error
        self._processes.add(process)
        return process

    def _forget(self, process: _Process) -> None:
        """Called when a process has exited."""
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)

    def _restart_idle_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle)

    def _end_idle(self) -> None:
        idle, self._idle = self._idle, []
        for process in idle:
            process.kill()


class _Process:
    """One process and the stream to it."""

    def __init__(
        self,
        child: Child,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_exit: Callable[[_Process], None],
    ) -> None:
        self.pid = child.pid
        self._child = child
        self._reader = reader
        self._writer = writer
        self._on_exit = on_exit
        self._has_exited = False
        asyncio.get_running_loop().add_reader(child.pidfd, self._reap)

    @classmethod
    async def start(cls, on_exit: Callable[[_Process], None]) -> _Process:
        """Start a process; `on_exit` is called when it has exited. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                child = start_child(
                    "validator", ValidatorConfig(theirs.fileno()), pass_fds=(theirs.fileno(),)
                )
        except BaseException:
            ours.close()
            raise
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            child.process.kill()
            child.process.wait()
            child.close()
            raise
        return cls(child, reader, writer, on_exit)

    async def check(self, request: CheckInput, limit_s: float) -> Checked:
        """Return the answer to a request; the process must be killed if this raises.

        Raises:
            ValidationTimeout: the validation took longer than `limit_s`.
            Unavailable: the process has ended, or did not receive the input in time.
        """
        try:
            async with asyncio.timeout(TRANSFER_LIMIT_S):
                self._writer.write(encode_frame(request))
                await self._writer.drain()
                decode_reply(await self._read_frame(), Begun)
        except TimeoutError:
            raise Unavailable("the input could not be passed on for validation", retry_after_s=2) from None
        except (OSError, EOFError) as error:
            raise _ended() from error
        try:
            async with asyncio.timeout(limit_s):
                return decode_reply(await self._read_frame(), Checked)
        except TimeoutError:
            message = f"the input could not be validated within {limit_s:.3g} s"
            raise ValidationTimeout(message) from None
        except (OSError, EOFError) as error:
            raise _ended() from error

    def kill(self) -> None:
        """Kill the process and close the stream; the process is reaped when it has exited."""
        if not self._has_exited:
            self._child.signal(signal.SIGKILL)
        self._writer.transport.abort()

    async def _read_frame(self) -> bytes:
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return await self._reader.readexactly(length)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._child.pidfd)
        self._has_exited = True
        self._writer.transport.abort()
        self._child.reap()
        self._child.close()
        self._on_exit(self)


def _ended() -> Unavailable:
    return Unavailable("the process that validated the input has ended; try again", retry_after_s=1)

"""Effect: one executor process from its worker's side: start, channel, output pipes, page and signals."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from subprocess import DEVNULL, Popen

from runner.processes.orphans import MARKER
from runner.protocol import framing
from runner.worker.processes.fork_client import ForkClient, ForkedProcess
from runner.worker.processes.page_figures import NO_FIGURES, PageFigures, believe

PAGE_BYTES = 64 * 1024
#: No process can change the size of the page.
PAGE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: Bytes of one read from a channel or pipe, and reads in one iteration of the loop. For a larger buffer the
#: allocator would map and unmap memory on every read.
READ_BYTES = 64 * 1024
READS_PER_TURN = 8
#: Added to the worker's own OOM score, so that the kernel kills an executor before the server.
OOM_SCORE_OFFSET = 500

_FIGURES = struct.Struct("<QQQQ")
#: Layout of the length of held frames, and the offset where the frames begin.
_UINT64, _HELD_OFFSET = struct.Struct("<Q"), 64


class ExecutorProcess:
    """A started executor process. All I/O is non-blocking; decisions are made by its supervisor."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        marker: str,
        fork_client: ForkClient | None = None,
    ) -> None:
        """Start the process; it is forked by the fork server if that is ready.

        Raises:
            OSError: the machine has not enough memory, processes or descriptors.
        """
        with contextlib.ExitStack() as undo:
            page_fd = os.memfd_create("runner-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            undo.callback(os.close, page_fd)
            os.ftruncate(page_fd, PAGE_BYTES)
            # The worker reads this memory: in a shorter file that would end it with SIGBUS.
            fcntl.fcntl(page_fd, fcntl.F_ADD_SEALS, PAGE_SEALS)
            self._page = mmap.mmap(page_fd, PAGE_BYTES)
            ours, theirs = socket.socketpair()
            self.channel = ours
            with theirs, contextlib.ExitStack() as on_failure:
                on_failure.callback(ours.close)
                pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
                for pair in pipes:
                    undo.callback(os.close, pair[1])
                    on_failure.callback(os.close, pair[0])
                fds = (theirs.fileno(), page_fd, pipes[0][1], pipes[1][1])
                forked = None if fork_client is None else fork_client.fork(env, marker, fds)
                self._popen: Popen[bytes] | ForkedProcess = forked or _start_process(
                    command, env, marker, fds
                )
                on_failure.pop_all()
        self.pid = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.output_fds = {"stdout": pipes[0][0], "stderr": pipes[1][0]}
        ours.setblocking(False)
        for descriptor in self.output_fds.values():
            os.set_blocking(descriptor, False)
        self._buffer = framing.FrameBuffer()
        self._unsent = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_reading = False
        self._count_attempts: Callable[[], tuple[int, int]] = lambda: (0, 0)
        self._figures = NO_FIGURES
        _raise_oom_score(self.pid)

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_channel: Callable[[], None],
        on_output: Callable[[str], None],
        on_exit: Callable[[], None],
        count_attempts: Callable[[], tuple[int, int]],
    ) -> None:
        """Register callbacks for received data, output (with the pipe's name) and the exit of the process.

        `count_attempts` returns how many attempts have ended here, and how many were assigned, with these.
        """
        self._count_attempts = count_attempts
        self._loop = loop
        self._on_channel = on_channel
        self.set_reading(True)
        for name, descriptor in self.output_fds.items():
            loop.add_reader(descriptor, on_output, name)
        loop.add_reader(self.pidfd, on_exit)

    def read_page(self) -> PageFigures:
        """Return the current content of the shared page, as far as it can be true."""
        started, started_ns, finished, active_ns = _FIGURES.unpack_from(self._page)
        read = PageFigures(started, started_ns / 1e9, finished, active_ns / 1e9)
        ended, assigned = self._count_attempts()
        self._figures = believe(
            self._figures, read, ended_count=ended, assigned_count=assigned, now_mono=time.monotonic()
        )
        return self._figures

    def last_active_mono(self, slot_index: int) -> float:
        """Return when the attempt in that slot last used its context, in monotonic seconds; 0.0 if that time
        can't be true."""
        (active_ns,) = _UINT64.unpack_from(self._page, _HELD_OFFSET + _UINT64.size * slot_index)
        active_mono = float(active_ns / 1e9)
        return active_mono if active_mono <= time.monotonic() else 0.0

    def read_held_frames(self) -> tuple[list[bytes], bool]:
        """Return, as `receive` does, the frames that were built but not sent when the process died.

        Raises:
            WireError: the page holds no valid frames.
        """
        (length,) = _UINT64.unpack_from(self._page, _FIGURES.size)
        return framing.FrameBuffer().feed(self._page[_HELD_OFFSET : _HELD_OFFSET + length]), True

    def set_reading(self, enabled: bool) -> None:
        """Stop or resume reading; while nothing is read, the executor blocks in its send."""
        if self._loop is None or enabled == self._is_reading:
            return
        self._is_reading = enabled
        if enabled:
            self._loop.add_reader(self.channel.fileno(), self._on_channel)
        else:
            self._loop.remove_reader(self.channel.fileno())

    def receive(self) -> tuple[list[bytes], bool]:
        """Return the frames received, and whether the other end was closed.

        Raises:
            WireError: the bytes are not a frame.
        """
        frames: list[bytes] = []
        for _ in range(READS_PER_TURN):
            try:
                chunk = self.channel.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return frames, False
            except OSError:
                return frames, True
            if not chunk:
                return frames, True
            frames += self._buffer.feed(chunk)
            if len(chunk) < READ_BYTES:
                break
        return frames, False

    def receive_output(self, name: str) -> tuple[bytes, PageFigures] | None:
        """Return new bytes of descriptor 1 or 2 (`name`) and the page as it was after they were written.

        None if there are none now. Only bytes that were in the pipe before the page was read are returned: so
        it is certain whether an attempt had started when they were written, even if the worker is suspended
        in between.
        """
        descriptor = self.output_fds.get(name)
        if descriptor is None:
            return None
        try:
            count = _unread_bytes(descriptor)
            figures = self.read_page()
            chunk = os.read(descriptor, min(count, READ_BYTES)) if count else b""
        except (BlockingIOError, InterruptedError):
            return None
        if chunk:
            return chunk, figures
        if _is_hung_up(descriptor):
            self._close_output(name)
        return None

    def send(self, messages: list[bytes]) -> None:
        """Send one frame to the executor; it is buffered here while the socket is full."""
        data = framing.with_length(framing.pack(messages))
        if self._unsent:
            self._unsent += data
            return
        try:
            count = self.channel.send(data)
        except (BlockingIOError, InterruptedError):
            count = 0
        except OSError:
            # The process has exited; its pidfd reports that.
            return
        if count < len(data) and self._loop is not None:
            self._unsent += data[count:]
            self._loop.add_writer(self.channel.fileno(), self._flush)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the executor's process group; only allowed until the leader is reaped."""
        if self._popen.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)  # guard: executor-group-killed

    def reap(self) -> int | None:
        """Return the exit status as `Popen.returncode`; None while the process is running."""
        return self._popen.poll()

    def close(self) -> None:
        """Close all descriptors on this side."""
        self.set_reading(False)
        if self._loop is not None and self._unsent:
            self._loop.remove_writer(self.channel.fileno())
        if self.pidfd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = -1
        for name in list(self.output_fds):
            self._close_output(name)
        self.channel.close()
        self._page.close()

    def _close_output(self, name: str) -> None:
        descriptor = self.output_fds.pop(name)
        if self._loop is not None:
            self._loop.remove_reader(descriptor)
        os.close(descriptor)

    def _flush(self) -> None:
        assert self._loop is not None
        try:
            count = self.channel.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = len(self._unsent)
        del self._unsent[:count]
        if not self._unsent:
            self._loop.remove_writer(self.channel.fileno())


def _start_process(
    command: Sequence[str], env: Mapping[str, str], marker: str, fds: tuple[int, int, int, int]
) -> Popen[bytes]:
    channel, page, out, err = fds
    return Popen(
        command,
        stdin=DEVNULL,
        stdout=out,
        stderr=err,
        pass_fds=(channel, page),
        start_new_session=True,
        env={
            **env,
            "JOB_RUNNER_CHANNEL_FD": str(channel),
            "JOB_RUNNER_PAGE_FD": str(page),
            "JOB_RUNNER_PARENT_PID": str(os.getpid()),
            MARKER: marker,
        },
    )


def _raise_oom_score(pid: int) -> None:
    """Try to raise the OOM score of an executor; some containers forbid it."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/oom_score_adj") as file:
            own = int(file.read())
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write(str(min(1000, own + OOM_SCORE_OFFSET)))


def _unread_bytes(descriptor: int) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def _is_hung_up(descriptor: int) -> bool:
    """Return whether the pipe has neither a writer nor unread bytes."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return any(not event & select.POLLIN for _, event in poller.poll(0))

"""Effect: client of the worker's fork server: starts it, forks executors, disables it when it fails."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import time
from asyncio import AbstractEventLoop
from collections.abc import Mapping, Sequence

from runner.executor.fork_server import CONTROL_FD, MODULES, PADDING, READY
from runner.processes.orphans import MARKER

log = logging.getLogger(__name__)

#: Longest wait for a fork, in seconds; the worker is blocked meanwhile.
FORK_TIMEOUT_S = 1.0
#: Extra space for executors' markers after the worker's name.
MARKER_EXTRA_BYTES = 40
#: A fork server that died is restarted at the next load, but not within this time (s) of its last start.
RESTART_S = 60.0


class ForkedProcess:
    """A forked executor, adopted by the worker as its subreaper; has the part of `Popen` that is needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None while it is running."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkClient:
    """Forks executors whose environment differs from the fork server's only in the marker.

    Executors with another environment are started as fresh processes. `modules` are imported by the fork
    server before the first fork. A refusal, such as a module that starts threads, disables it for good.
    """

    def __init__(
        self, command: Sequence[str], modules: Sequence[str], env: Mapping[str, str], worker: str
    ) -> None:
        self._command = command
        self._modules = modules
        self._env = dict(env)
        self._marker = f"{worker}/template".ljust(len(worker) + MARKER_EXTRA_BYTES, PADDING)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._loop: AbstractEventLoop | None = None
        self._is_ready = self._is_refused = False
        self._started_mono = 0.0

    @property
    def pid(self) -> int | None:
        """Return the pid of the fork server; None if it is not running."""
        return None if self._process is None else self._process.pid

    def start(self, loop: AbstractEventLoop) -> None:
        """Start the fork server; it is used once it has reported that it is ready. A failure is logged."""
        self._loop = loop
        self._started_mono = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env={
                        **self._env,
                        "JOB_RUNNER_PARENT_PID": str(os.getpid()),
                        CONTROL_FD: str(theirs.fileno()),
                        MODULES: ",".join(self._modules),
                        MARKER: self._marker,
                    },
                )
        except OSError as error:
            ours.close()
            log.warning("cannot start the fork server: %s", error)
            return
        ours.settimeout(FORK_TIMEOUT_S)
        self._control = ours
        loop.add_reader(ours.fileno(), self._on_message)

    def fork(self, env: Mapping[str, str], marker: str, fds: Sequence[int]) -> ForkedProcess | None:
        """Fork an executor; return None if it must be started as a fresh process.

        `fds` are its channel, page, standard output and standard error. Blocks for FORK_TIMEOUT_S at most.
        """
        if self._control is None:
            age_s = time.monotonic() - self._started_mono
            if self._loop is not None and not self._is_refused and age_s > RESTART_S:
                self.start(self._loop)
            return None
        if not self._is_ready or dict(env) != self._env or len(marker) > len(self._marker):
            return None
        try:
            socket.send_fds(self._control, [marker.encode()], list(fds))
            reply = self._control.recv(4096)
        except OSError as error:
            self._disable(f"no reply: {error}")
            return None
        if not reply.startswith(b"pid "):
            self._is_refused = bool(reply)
            self._disable(reply.decode("utf-8", "replace") or "it has ended")
            return None
        return ForkedProcess(int(reply[4:]))

    def close(self) -> None:
        """Stop the fork server."""
        control, self._control = self._control, None
        self._is_ready = False
        if control is not None and self._loop is not None:
            self._loop.remove_reader(control.fileno())
            control.close()
        child, self._process = self._process, None
        if child is not None:
            child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(FORK_TIMEOUT_S)

    def _on_message(self) -> None:
        """Handle the report that the fork server is ready, its refusal, or its end (an empty message)."""
        assert self._control is not None
        try:
            message = self._control.recv(4096)
        except OSError as error:
            message = str(error).encode()
        if message == READY:
            self._is_ready = True
            return
        self._is_refused = bool(message)
        self._disable(message.decode("utf-8", "replace") or "it has ended")

    def _disable(self, reason: str) -> None:
        """Stop the fork server; executors are fresh processes until it is started again."""
        log.warning("fork server disabled, starting executors as fresh processes: %s", reason)
        self.close()

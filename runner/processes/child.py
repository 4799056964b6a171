"""Effect: starts the project's own processes and passes each its config over an inherited descriptor.

Every child gets a *lifeline*: one end of a socket pair whose first bytes are a length-prefixed msgpack
document (the config struct of its role), after which nothing is written. End of file on it means that
the parent is gone: the child exits. No secret is ever passed on a command line.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import Literal, TypeVar

import msgspec

from runner.protocol.framing import LENGTH

Role = Literal["front", "worker", "probe", "writer", "survey"]


class WorkerConfig(msgspec.Struct, array_like=True):
    endpoint: str
    token: str
    node: str
    #: Unique per incarnation: "<device>-<hex>".
    name: str
    epoch: int
    device: str
    device_kind: Literal["nvidia", "cpu", "sim"]
    #: flock held for the worker's lifetime: no two workers of one data folder drive the same device.
    lock_path: str
    spool_dir: str
    files_dir: str
    tmp_dir: str
    #: Complete environment of executors, before `LoadExecutor.env` adds the device mask.
    executor_env: dict[str, str]
    output_max_bytes: int
    log_max_bytes: int
    events_max: int
    log_format: str = "human"
    log_level: str = "info"
    #: Modules that the fork server imports, and its device mask. Empty: no fork server.
    template: list[str] = []
    template_env: dict[str, str] = {}


class ProbeConfig(msgspec.Struct, array_like=True):
    endpoint: str
    token: str
    node: str
    name: str
    epoch: int
    #: Value of `--gpus`.
    gpus: str
    interval_s: float = 1.0
    max_executors: int | None = None
    headroom_bytes: int | None = None
    log_format: str = "human"
    log_level: str = "info"


class SurveyConfig(msgspec.Struct, array_like=True):
    #: Value of `--gpus`.
    gpus: str
    #: Descriptor for the reply.
    fd: int


class WriterConfig(msgspec.Struct, array_like=True):
    url: str
    #: Descriptor of the stream of batches and replies.
    fd: int


class FrontConfig(msgspec.Struct, array_like=True):
    #: Descriptors of the listening socket and of the stream to the coordinator.
    listen_fd: int
    control_fd: int
    host: str
    port: int
    allow_hosts: list[str]
    allow_origins: list[str]
    #: SHA-256 of the token; empty: no token is required.
    token_sha256: bytes
    #: Signs tickets for streams.
    ticket_key: bytes
    body_max_bytes: int
    bulk_max_bytes: int
    depth_max: int
    version: str
    receipt_timeout_s: float = 10.0  # guard: receipt-timeout
    stream_stall_s: float = 30.0  # guard: stream-stall
    ping_s: float = 15.0
    log_format: str = "human"
    log_level: str = "info"


Config = TypeVar("Config", WorkerConfig, ProbeConfig, SurveyConfig, WriterConfig, FrontConfig)


class Child:
    """A started process: its pid, a pidfd that becomes readable when it ends, and its lifeline."""

    def __init__(self, role: Role, process: subprocess.Popen[bytes], lifeline: socket.socket) -> None:
        self.role = role
        self.process = process
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)
        self.lifeline = lifeline

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process is still alive."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def reap(self) -> int | None:
        """Return the exit status (negative: a signal) if it has ended, else None."""
        return self.process.poll()

    def cut_lifeline(self) -> None:
        """Close this end of the lifeline, which tells the child that its parent is gone."""
        try:
            self.lifeline.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The process has ended already.
            return

    def close(self) -> None:
        """Close the descriptors; closing the lifeline tells a living child to exit."""
        self.lifeline.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def start_child(
    role: Role, config: msgspec.Struct, *, pass_fds: tuple[int, ...] = (), env: dict[str, str] | None = None
) -> Child:
    """Start `python -P -m runner ROLE` in a session of its own with this config on its lifeline.

    Must be called from the main thread: a child's parent-death signal follows the thread.
    """
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runner", role, "--lifeline", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), *pass_fds),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            env=env,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    document = msgspec.msgpack.encode(config)
    try:
        ours.sendall(LENGTH.pack(len(document)) + document)
        return Child(role, process, ours)
    except BaseException:
        # Otherwise nothing would know of the child or reap it.
        ours.close()
        process.kill()
        process.wait()
        raise


def read_config(fd: int, kind: type[Config]) -> tuple[Config, socket.socket]:
    """Return this process's config, and the lifeline to watch for end of file; called in the child."""
    lifeline = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    (length,) = LENGTH.unpack(_read_exactly(lifeline, LENGTH.size))
    return msgspec.msgpack.decode(_read_exactly(lifeline, length), type=kind), lifeline


def ignore_terminal_signals() -> None:
    """Ignore SIGINT and SIGTERM, which reach the whole group; the coordinator handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _read_exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = stream.recv(size - len(data))
        if not chunk:
            raise EOFError("the parent ended before it had told this process what it is")
        data += chunk
    return data

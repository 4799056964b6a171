"""Effect: starts the project's own processes and passes each its config over an inherited descriptor.

Every child gets a *lifeline*: one end of a socket pair. The parent writes a length-prefixed msgpack document
into it, the config struct of the child's role, and nothing after that. End of file on the lifeline means
that the parent is gone: the child exits. In the other direction the writer sends its beats. No secret is
ever passed on a command line.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Literal, TypeVar

import msgspec

from runner.processes.pulse import PING_INTERVAL_S, Activity
from runner.protocol.framing import LENGTH

Role = Literal["front", "worker", "probe", "writer", "survey", "validator"]


class WorkerConfig(msgspec.Struct, array_like=True):
    """The config of the worker of one device."""

    #: Socket of the coordinator, and the secret that the worker presents there first.
    endpoint: str
    token: str
    #: Host name of the machine.
    node: str
    #: Unique among all starts of all workers: "MARKER.DEVICE.EPOCH.HEX".
    name: str
    #: Epoch of the coordinator that started the worker.
    epoch: int
    #: Id of the device.
    device: str
    device_kind: Literal["nvidia", "cpu", "sim"]
    #: Locked (flock) while the worker runs, so that no two workers of one data folder drive the same device.
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
    """The config of the probe; fields of the same name are as for a worker."""

    endpoint: str
    token: str
    node: str
    name: str
    epoch: int
    #: Value of `--gpus`.
    gpus: str
    #: Time between two readings.
    interval_s: float = 1.0
    #: What the settings say for every device; None: the default of each kind.
    max_executors: int | None = None
    headroom_bytes: int | None = None
    max_resident: int | None = None
    log_format: str = "human"
    log_level: str = "info"


class SurveyConfig(msgspec.Struct, array_like=True):
    """The config of a process that finds the devices once, for `runner doctor`."""

    #: Value of `--gpus`.
    gpus: str
    #: Descriptor for the reply.
    fd: int


class WriterConfig(msgspec.Struct, array_like=True):
    """The config of the process that commits to the store."""

    #: URL of the store.
    url: str
    #: Descriptor of the stream of batches and replies.
    fd: int
    log_format: str = "auto"
    log_level: str = "info"


class ValidatorConfig(msgspec.Struct, array_like=True):
    """The config of a process that validates inputs for a front."""

    #: Descriptor of the stream of requests and replies.
    fd: int


class FrontConfig(msgspec.Struct, array_like=True):
    """The config of a front."""

    #: Descriptors of the listening sockets and of the stream to the coordinator.
    listen_fds: list[int]
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


Config = TypeVar(
    "Config", WorkerConfig, ProbeConfig, SurveyConfig, WriterConfig, ValidatorConfig, FrontConfig
)


class Child:
    """A started process: its pid, a pidfd that becomes readable when the process ends, and its lifeline."""

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

    def read_activity(self) -> Activity | None:
        """Read what the kernel shows of the process; None if it has ended or descriptors have run out."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as file:
                stat = file.read()
        except OSError:
            return None
        # The name in brackets may contain any character; utime and stime are fields 12 and 13 behind it.
        fields = stat.rpartition(")")[2].split()
        cpu_ticks = int(fields[11]) + int(fields[12])
        return Activity(cpu_ticks / os.sysconf("SC_CLK_TCK"), fields[0])

    def has_beaten(self) -> bool:
        """Return whether the process has sent beats on its lifeline since the last call, see `send_beats`."""
        try:
            return bool(self.lifeline.recv(4096, socket.MSG_DONTWAIT))
        except OSError:
            # Nothing came, or the process has ended.
            return False

    def reap(self) -> int | None:
        """Return the exit status of an ended process (negative: the number of a signal), else None."""
        return self.process.poll()

    def cut_lifeline(self) -> None:
        """End the lifeline, which the child takes as the end of its parent."""
        try:
            self.lifeline.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The process has ended already and closed its end.
            return

    def close(self) -> None:
        """Close the descriptors; a child that still runs exits at the end of its lifeline."""
        self.lifeline.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def start_child(
    role: Role, config: msgspec.Struct, *, pass_fds: tuple[int, ...] = (), env: dict[str, str] | None = None
) -> Child:
    """Start `python -P -m runner ROLE` in a session of its own with this config on its lifeline.

    The child inherits `pass_fds` and no other descriptor. Must be called from the main thread, as the signal
    at the death of the parent is bound to the thread that started the child.

    Raises:
        OSError: processes, descriptors or memory have run out.
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
        # No caller has the child yet, so that none could reap it.
        ours.close()
        process.kill()
        process.wait()
        raise


def read_config(fd: int, kind: type[Config]) -> tuple[Config, socket.socket]:
    """Return this process's config and the lifeline to watch for end of file. Called in the child.

    Raises:
        EOFError: the parent ended before it had sent the config.
    """
    lifeline = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    (length,) = LENGTH.unpack(_read_exactly(lifeline, LENGTH.size))
    return msgspec.msgpack.decode(_read_exactly(lifeline, length), type=kind), lifeline


def send_beats(lifeline: socket.socket) -> None:
    """Send a byte to the parent each `PING_INTERVAL_S` until the lifeline ends: this process is not stopped.

    For a process whose main thread may wait for a disk for minutes; called in a thread of its own.
    """
    while True:
        try:
            lifeline.send(b".", socket.MSG_DONTWAIT)
        except BlockingIOError:
            # The parent does not read: it is held up itself.
            pass
        except OSError:
            return
        time.sleep(PING_INTERVAL_S)


def ignore_terminal_signals() -> None:
    """Ignore SIGINT and SIGTERM, which a terminal sends to the whole group; the coordinator handles them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _read_exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = stream.recv(size - len(data))
        if not chunk:
            raise EOFError("the parent ended before it had sent the config of this process")
        data += chunk
    return data

"""Effect: starts workers and the probe, exchanges messages with them, and replaces those that fail."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Protocol

from gpu.devices.device import Device
from runner.coordinator.processes.child_pool import ChildPool
from runner.coordinator.processes.local_process import LocalProcess, describe_exit
from runner.coordinator.processes.worker_connection import WorkerConnection
from runner.processes.child import ProbeConfig, WorkerConfig
from runner.processes.orphans import kill_marked
from runner.processes.restart_backoff import RestartBackoff
from runner.protocol import framing
from runner.protocol.worker import Hello, Stop, encode
from runner.protocol.zmq_router import ZmqRouter

log = logging.getLogger(__name__)

WorkerRole = Literal["worker", "probe"]

#: Shortest and longest pause before a worker is restarted; each is twice as long as the one before.
RESTART_PAUSES_S = (0.2, 10.0)
#: A worker that ran for longer than this is restarted after the shortest pause again.
STABLE_S = 30.0
#: A probe that sends nothing for this long hangs: it is killed and replaced.
PROBE_SILENT_S = 5.0
#: A worker whose link breaks reconnects by itself; one that takes longer than this is replaced.
RECONNECT_TIMEOUT_S = 5.0
#: Time for a worker whose lifeline is cut to write its unacknowledged messages to the spool.
SPOOL_WRITE_S = 0.4
#: Time for killed workers to exit; one in an uninterruptible system call does not.
KILL_TIMEOUT_S = 2.0
#: An acknowledgement is sent with the next frame, or alone after this delay. The worker needs it no sooner,
#: and a frame of its own would wake three threads while a client waits for its reply.
ACK_DELAY_S = 0.005
#: Of the bad frames, which are all counted, at most one in this interval is logged.
BAD_FRAME_LOG_S = 1.0


class WorkerListener(Protocol):
    """Handler of the connections, messages and exits of workers."""

    def on_worker_connected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Called with the first hello of a worker."""

    def on_worker_reconnected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Called with each later hello: the link broke and was restored."""

    def on_messages(self, worker: WorkerHandle, messages: list[bytes]) -> None:
        """Called with the encoded messages of one frame, in order."""

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        """Called when the process of a worker has exited; `why` is the exit status in words."""


class WorkerHandle:
    """One worker or probe, from its start to its exit: the connection to it and its process.

    Code outside of this package ends a worker by `kill` and does not touch `process`: a worker on another
    node would have none here.
    """

    def __init__(
        self, role: WorkerRole, device: Device | None, connection: WorkerConnection, process: LocalProcess
    ) -> None:
        self.role = role
        #: None for the probe.
        self.device = device
        self.connection = connection
        self.process = process
        #: Whether it was killed because it had been silent, which only the probe is.
        self.is_killed_as_hung = False

    @property
    def name(self) -> str:
        """The name of the connection, unique among all starts of all workers."""
        return self.connection.name

    @property
    def pid(self) -> int:
        """The process id on its node."""
        return self.process.pid

    @property
    def is_connected(self) -> bool:
        """Whether the worker has ever connected; True also while its link is broken."""
        return self.connection.is_connected

    def kill(self) -> None:
        """Kill the worker: its executors end with it, and the pool replaces it."""
        self.process.kill()


class _WorkerSlot:
    """The place of one device's worker, or of the probe."""

    def __init__(
        self,
        role: WorkerRole,
        device: Device | None,
        spawn: Callable[[_WorkerSlot], WorkerHandle],
        on_lost: Callable[[WorkerHandle, int], None],
    ) -> None:
        self.role = role
        self.device = device
        #: None while no process runs here.
        self.handle: WorkerHandle | None = None
        self._spawn = spawn
        self._on_lost = on_lost
        self._started_mono = 0.0
        self._backoff = RestartBackoff(first_pause_s=RESTART_PAUSES_S[0], max_pause_s=RESTART_PAUSES_S[1])

    def start(self) -> LocalProcess:
        """See `ChildSlot.start`."""
        self.handle = self._spawn(self)
        self._started_mono = self.handle.process.started_mono
        return self.handle.process

    def restart_pause_s(self, now_mono: float) -> float:
        """See `ChildSlot.restart_pause_s`."""
        if now_mono - self._started_mono > STABLE_S:
            self._backoff.reset()
        return self._backoff.begin_pause(now_mono)

    def retry_pause_s(self, now_mono: float) -> float:
        """See `ChildSlot.retry_pause_s`."""
        return self.restart_pause_s(now_mono)

    def on_exit(self, process: LocalProcess, status: int) -> None:
        """See `ChildSlot.on_exit`."""
        handle, self.handle = self.handle, None
        assert handle is not None
        self._on_lost(handle, status)


class WorkerPool:
    """All processes that use the worker protocol with this coordinator: workers and the probe.

    `post` queues messages, `flush` sends those of each worker in as few frames as their size permits.
    """

    def __init__(
        self,
        *,
        runtime: Path,
        epoch: int,
        marker: str,
        worker_config: Callable[[str, Device, str, str], WorkerConfig],
        probe_config: Callable[[str, str, str], ProbeConfig],
        listener: WorkerListener,
    ) -> None:
        self._endpoint = f"ipc://{runtime}/workers.sock"
        self._epoch = epoch
        #: Prefix of every worker's name, by which processes of this data folder are recognised.
        self._marker = marker
        self._worker_config = worker_config
        self._probe_config = probe_config
        self._listener = listener
        #: Presented by every worker in its first frame; new at each start of the coordinator.
        self.token = secrets.token_hex(16)
        #: Workers and the probe by name, as long as their processes run.
        self.workers: dict[str, WorkerHandle] = {}
        self._children = ChildPool()
        self._slots_by_device: dict[str, _WorkerSlot] = {}
        self._probe_slot = _WorkerSlot("probe", None, self._spawn, self._on_lost)
        self._workers_to_flush: list[WorkerHandle] = []
        #: Number of frames that were dropped.
        self.bad_frames = 0
        self._next_bad_log_at = 0.0
        self.router = ZmqRouter(
            self._endpoint,
            self.token,
            on_frame=self._on_frame,
            on_hello=self._on_hello,
            on_bad_frame=self._on_bad_frame,
        )

    def open(self) -> None:
        """Bind the socket to which workers connect."""
        self.router.open()

    def start_worker(self, device: Device) -> None:
        """Start the worker of a device unless it has one.

        Raises:
            OSError: processes, descriptors or memory have run out.
        """
        slot = self._slots_by_device.get(device.id)
        if slot is None:
            slot = _WorkerSlot("worker", device, self._spawn, self._on_lost)
            self._slots_by_device[device.id] = slot
        self._children.start(slot)

    def start_cpu_workers(self, devices: Iterable[Device]) -> None:
        """Start the worker of each cpu device that has none; those of GPUs start with the server."""
        for device in devices:
            if device.kind == "cpu":
                self.start_worker(device)

    def start_probe(self) -> None:
        """Start the probe of this node's devices.

        Raises:
            OSError: processes, descriptors or memory have run out.
        """
        self._children.start(self._probe_slot)

    def worker_of(self, device_id: str) -> WorkerHandle | None:
        """Return the worker of a device; None while its process does not run."""
        slot = self._slots_by_device.get(device_id)
        return None if slot is None else slot.handle

    def post(self, worker: WorkerHandle, message: bytes) -> None:
        """Queue a message that the next `flush` sends."""
        if not worker.connection.pending_messages:
            self._workers_to_flush.append(worker)
        worker.connection.pending_messages.append(message)

    def acknowledge(self, worker: WorkerHandle, seq: int) -> None:
        """Acknowledge the worker's messages up to number `seq`, which are durable."""
        if worker.connection.pending_ack is None:
            asyncio.get_running_loop().call_later(ACK_DELAY_S, self._send_ack, worker)
        worker.connection.pending_ack = seq

    def flush(self) -> None:
        """Send the queued messages of all workers."""
        waiting, self._workers_to_flush = self._workers_to_flush, []
        for worker in waiting:
            messages = worker.connection.take_messages()
            if self.workers.get(worker.name) is not worker or all(
                self.router.send(worker.name, frame) for frame in framing.group(messages)
            ):
                continue
            if self.router.is_disconnected(worker.name):
                # After a reconnect the hello shows which messages the worker missed.
                if worker.connection.disconnected_mono is None:
                    log.warning("%s is disconnected", worker.name)
                    worker.connection.disconnected_mono = asyncio.get_running_loop().time()
            else:
                # An exit would show on the pidfd, so the process lives and does not read: it is stuck.
                log.warning("worker %s takes no messages: it is replaced", worker.name)
                worker.kill()

    def replace_silent(self, now_mono: float) -> None:
        """Kill each worker that did not reconnect in time, and the probe if it has been silent for too long.

        A probe falls silent because NVML hangs when a GPU is faulty.
        """
        for worker in list(self.workers.values()):
            disconnected_mono = worker.connection.disconnected_mono
            if disconnected_mono is not None and now_mono - disconnected_mono > RECONNECT_TIMEOUT_S:
                log.error(
                    "%s did not reconnect within %g s: it is replaced", worker.name, RECONNECT_TIMEOUT_S
                )
                worker.kill()
            if worker.role == "probe" and worker.is_connected:
                silent_s = now_mono - worker.connection.last_message_mono
                if silent_s > PROBE_SILENT_S and not worker.is_killed_as_hung:
                    # Once: a probe that hangs in the driver may survive SIGKILL, and is not replaced then.
                    worker.is_killed_as_hung = True
                    log.error("the probe has been silent for %.1f s: it is replaced", silent_s)
                    worker.kill()

    def kill_all(self) -> None:
        """Kill all workers and the probe; the executors end with their workers."""
        self._children.kill_all()

    async def close(self, timeout_s: float) -> None:
        """Request every process to stop; kill those that still run after `timeout_s`; wait for all exits."""
        self._children.stop_restarts()
        for worker in list(self.workers.values()):
            self.post(worker, encode(Stop()))
        self.flush()
        if not await self._children.wait_all_exited(timeout_s):
            # The workers wait for the acknowledgement of their last messages. Once they take the coordinator
            # as gone, they write these messages to the spool.
            self._children.cut_lifelines()
            if not await self._children.wait_all_exited(SPOOL_WRITE_S):
                await self._children.kill_and_wait(KILL_TIMEOUT_S)
        self.router.close()

    def _spawn(self, slot: _WorkerSlot) -> WorkerHandle:
        device = slot.device
        name = f"{self._marker}.{device.id if device else 'probe'}.{self._epoch}.{secrets.token_hex(3)}"
        config = (
            self._worker_config(name, device, self._endpoint, self.token)
            if device is not None
            else self._probe_config(name, self._endpoint, self.token)
        )
        process = LocalProcess.spawn(slot.role, config, name=name)
        connection = WorkerConnection(name, config.node, process.started_mono)
        worker = WorkerHandle(slot.role, device, connection, process)
        self.workers[name] = worker
        return worker

    def _on_lost(self, worker: WorkerHandle, status: int) -> None:
        del self.workers[worker.name]
        self.router.forget_peer(worker.name)
        # Descendants in sessions of their own outlive the worker; the marker in their environment shows them.
        kill_marked(f"{worker.name}/")
        self._listener.on_worker_lost(worker, describe_exit(status))

    def _send_ack(self, worker: WorkerHandle) -> None:
        if worker.connection.pending_ack is not None and self.workers.get(worker.name) is worker:
            if not worker.connection.pending_messages:
                self._workers_to_flush.append(worker)
            self.flush()

    def _on_hello(self, name: str, hello: Hello) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.pid != hello.pid:
            self._on_bad_frame(f"a hello of an unknown worker, {name!r}")
            return
        if worker.connection.record_hello(asyncio.get_running_loop().time()):
            self._listener.on_worker_connected(worker, hello)
        else:
            self._listener.on_worker_reconnected(worker, hello)

    def _on_frame(self, name: str, messages: list[bytes]) -> None:
        worker = self.workers.get(name)
        if worker is None:
            self._on_bad_frame(f"a frame of an unknown worker, {name!r}")
            return
        worker.connection.last_message_mono = asyncio.get_running_loop().time()
        self._listener.on_messages(worker, messages)

    def _on_bad_frame(self, why: str) -> None:
        self.bad_frames += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_bad_log_at:
            self._next_bad_log_at = now + BAD_FRAME_LOG_S
            log.warning("dropped a bad frame (%d so far): %s", self.bad_frames, why)

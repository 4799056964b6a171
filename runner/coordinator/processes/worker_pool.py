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
from runner.processes.pulse import PING_INTERVAL_S, Pulse, PulseLimits
from runner.processes.restart_backoff import RestartBackoff
from runner.protocol import framing
from runner.protocol.worker import Hello, Stop, WorkerPing, WorkerPong, encode
from runner.protocol.zmq_router import ZmqRouter

log = logging.getLogger(__name__)

WorkerRole = Literal["worker", "probe"]

_PING = encode(WorkerPing())
_ONLY_PONG = [encode(WorkerPong())]

#: Shortest and longest pause before a worker is restarted; each is twice as long as the one before.
RESTART_PAUSES_S = (0.2, 10.0)
#: A worker that ran for longer than this is restarted after the shortest pause again.
STABLE_S = 30.0
#: The probe is not asked: it sends readings at least every 2 s. Without them GPUs take no work, so it has
#: less time than a worker, also if it is busy.
PROBE_PULSE = PulseLimits(silent_max=5, busy_max=5)
#: Time for a worker whose lifeline is cut to write its unacknowledged messages to the spool.
SPOOL_WRITE_S = 0.4
#: Time for killed workers to exit; one in an uninterruptible system call does not.
KILL_TIMEOUT_S = 2.0
#: Pause before processes that a worker left behind are looked for again, after a search that failed.
KILL_RETRY_S = 1.0
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

    def on_worker_hung(self, worker: WorkerHandle) -> None:
        """Called when a worker is about to be killed because it hangs."""

    def on_worker_stuck(self, worker: WorkerHandle) -> None:
        """Called when a hung worker has survived SIGKILL, as in a driver that hangs: its executors were
        killed. `on_worker_lost` follows if it exits after all."""

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
        self.pulse = Pulse(PROBE_PULSE if role == "probe" else None)
        #: Whether its executors were given up because it survived SIGKILL.
        self.is_stuck = False

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
        """Whether the worker has ever connected; True also while its link is broken. A worker that does not
        reconnect leaves its pings unanswered."""
        return self.connection.is_connected

    @property
    def is_answering(self) -> bool:
        """Whether the worker takes commands, as far as its answers to pings show."""
        return self.is_connected and not self.pulse.is_late

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
        self._ping_timer: asyncio.TimerHandle | None = None
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
                if not worker.connection.is_link_lost:
                    log.warning("%s is disconnected", worker.name)
                    worker.connection.is_link_lost = True
            else:
                # An exit would show on the pidfd, so the process lives and does not read: it is stuck.
                log.warning("worker %s takes no messages: it is replaced", worker.name)
                worker.kill()

    def start_pings(self) -> None:
        """WorkerPing every worker each `PING_INTERVAL_S` from now on, and replace those that hang."""
        loop = asyncio.get_running_loop()
        self._ping_timer = loop.call_later(PING_INTERVAL_S, self.start_pings)
        self.ping_all(loop.time())

    def ping_all(self, now_mono: float) -> None:
        """WorkerPing every worker and kill each that hangs; the probe hangs when NVML does."""
        for worker in list(self.workers.values()):
            if worker.pulse.record_ping(
                now_mono, worker.process.read_activity(), is_ready=worker.is_connected
            ):
                self._replace_hung(worker)  # guard: hung-worker-replaced
            elif worker.pulse.survives_kill and not worker.is_stuck:
                self._give_up(worker)
            elif worker.role == "worker" and worker.is_connected and not worker.pulse.is_hung:
                self.post(worker, _PING)
        self.flush()

    def _replace_hung(self, worker: WorkerHandle) -> None:
        silent_s = worker.pulse.unanswered_pings * PING_INTERVAL_S
        log.error("%s %s has been silent for %g s: it is replaced", worker.role, worker.name, silent_s)
        self._listener.on_worker_hung(worker)
        worker.kill()

    def _give_up(self, worker: WorkerHandle) -> None:
        """End the executors of a worker that SIGKILL does not end: it no longer supervises them."""
        worker.is_stuck = True
        log.error("%s %s survived SIGKILL; it is replaced once it has ended", worker.role, worker.name)
        self._kill_left_behind(worker.name)
        self._listener.on_worker_stuck(worker)

    def _kill_left_behind(self, name: str) -> None:
        """Kill descendants in sessions of their own, which outlive the worker of this name; the marker in
        their environment shows them. Tried again until it succeeds: descriptors may have run out."""
        try:
            kill_marked(f"{name}/")
        except OSError as error:
            log.error("processes of %s can't be found: %s; retry in %g s", name, error, KILL_RETRY_S)
            asyncio.get_running_loop().call_later(KILL_RETRY_S, self._kill_left_behind, name)

    def kill_all(self) -> None:
        """Kill all workers and the probe; the executors end with their workers."""
        self._children.kill_all()

    async def close(self, timeout_s: float) -> None:
        """Request every process to stop; kill those that still run after `timeout_s`; wait for all exits."""
        self._children.stop_restarts()
        if self._ping_timer is not None:
            self._ping_timer.cancel()
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
        connection = WorkerConnection(name, config.node)
        worker = WorkerHandle(slot.role, device, connection, process)
        self.workers[name] = worker
        return worker

    def _on_lost(self, worker: WorkerHandle, status: int) -> None:
        del self.workers[worker.name]
        self.router.forget_peer(worker.name)
        self._kill_left_behind(worker.name)
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
        worker.pulse.record_sign_of_life()
        if worker.connection.record_hello():
            self._listener.on_worker_connected(worker, hello)
        else:
            self._listener.on_worker_reconnected(worker, hello)

    def _on_frame(self, name: str, messages: list[bytes]) -> None:
        worker = self.workers.get(name)
        if worker is None:
            self._on_bad_frame(f"a frame of an unknown worker, {name!r}")
            return
        worker.pulse.record_sign_of_life()
        if messages != _ONLY_PONG:
            self._listener.on_messages(worker, messages)

    def _on_bad_frame(self, why: str) -> None:
        self.bad_frames += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_bad_log_at:
            self._next_bad_log_at = now + BAD_FRAME_LOG_S
            log.warning("dropped a bad frame (%d so far): %s", self.bad_frames, why)

"""Effect: the worker and probe processes of this node: starts, messages to and from them, deaths."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from gpu.devices.device import Device
from runner.processes.child import Child, ProbeConfig, WorkerConfig, start_child
from runner.processes.orphans import kill_marked
from runner.processes.restart_backoff import RestartBackoff
from runner.protocol.worker import Ack, Hello, Stop, encode
from runner.protocol.zmq_router import ZmqRouter

log = logging.getLogger(__name__)

#: A dead worker is restarted after 0.2 s, then after twice as long each time, up to 10 s.
RESTART_S = (0.2, 10.0)
#: After this time of running, a worker's earlier deaths no longer count.
STABLE_S = 30.0
#: A probe that is silent for this long is hung: it is killed and replaced.
PROBE_SILENT_S = 5.0
#: A worker whose connection is lost reconnects by itself; if it takes longer than this it is replaced.
RECONNECT_TIMEOUT_S = 5.0
#: Time for a worker whose lifeline is cut to spool its unacknowledged messages.
SPOOL_WRITE_S = 0.4
#: An acknowledgement is sent with the next frame, or after this delay: the worker needs it no sooner,
#: and a frame for it alone would wake three threads just when a client is to get its reply.
ACK_DELAY_S = 0.005
#: All bad frames are counted, but only one in this interval is logged.
BAD_FRAME_LOG_S = 1.0


class WorkerListener(Protocol):
    """Handles messages of workers, and their connections and deaths."""

    def on_worker_connected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Called when a worker has connected."""

    def on_worker_reconnected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Called when a worker has reconnected."""

    def on_messages(self, worker: WorkerHandle, messages: list[bytes]) -> None:
        """Called with the messages of a frame."""

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        """Called when the process of a worker has ended."""


class WorkerHandle:
    """One worker or probe process, from its start to its death."""

    def __init__(
        self, name: str, role: str, device: Device | None, child: Child, started_mono: float
    ) -> None:
        self.name = name
        self.role = role
        self.device = device
        self.child = child
        self.started_mono = started_mono
        self.is_connected = False
        #: When the loss of its connection was found; None while it is connected.
        self.disconnected_mono: float | None = None
        #: The probe was hung, and was killed for it.
        self.is_killed_as_hung = False
        #: The highest number of an applied message.
        self.last_applied = 0
        #: The highest number of a durable message that is not acknowledged yet; None if all are.
        self.pending_ack: int | None = None
        self.last_message_mono = started_mono
        self.pending_messages: list[bytes] = []


class WorkerPool:
    """All processes that use the worker protocol with this coordinator."""

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
        #: Prefix of every worker's name; processes of this data folder are known by it.
        self._marker = marker
        self._worker_config = worker_config
        self._probe_config = probe_config
        self._listener = listener
        #: Every worker of this start presents it first.
        self.token = secrets.token_hex(16)
        self.workers: dict[str, WorkerHandle] = {}
        self._by_device: dict[str, WorkerHandle] = {}
        self._workers_to_flush: list[WorkerHandle] = []
        #: By device id; the probe's is "probe".
        self._backoffs: dict[str, RestartBackoff] = {}
        self._closing = False
        self._all_exited = asyncio.Event()
        self._all_exited.set()
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
        """Bind the socket for workers."""
        self.router.open()

    def start_worker(self, device: Device) -> None:
        """Start the worker of a device unless it has one."""
        if self._closing or device.id in self._by_device:
            return
        name = self._make_name(device.id)
        config = self._worker_config(name, device, self._endpoint, self.token)
        worker = self._spawn(name, "worker", device, config)
        self._by_device[device.id] = worker

    def start_cpu_workers(self, devices: Iterable[Device]) -> None:
        """Start the workers of cpu devices; the others start with the server."""
        for device in devices:
            if device.kind == "cpu":
                self.start_worker(device)

    def start_probe(self) -> None:
        """Start the probe of this node's devices."""
        if self._closing:
            return
        name = self._make_name("probe")
        self._spawn(name, "probe", None, self._probe_config(name, self._endpoint, self.token))

    def worker_of(self, device_id: str) -> WorkerHandle | None:
        """The worker of a device, if it is alive."""
        return self._by_device.get(device_id)

    def post(self, worker: WorkerHandle, message: bytes) -> None:
        """Queue a message for the frame that the next `flush` sends."""
        if not worker.pending_messages:
            self._workers_to_flush.append(worker)
        worker.pending_messages.append(message)

    def acknowledge(self, worker: WorkerHandle, seq: int) -> None:
        """Acknowledge the worker's messages up to `seq`, which are durable."""
        if worker.pending_ack is None:
            asyncio.get_running_loop().call_later(ACK_DELAY_S, self._send_ack, worker)
        worker.pending_ack = seq

    def flush(self) -> None:
        """Send the queued messages, one frame per worker."""
        waiting, self._workers_to_flush = self._workers_to_flush, []
        for worker in waiting:
            messages, worker.pending_messages = worker.pending_messages, []
            if worker.pending_ack is not None:
                messages.append(encode(Ack(worker.pending_ack)))
                worker.pending_ack = None
            if self.workers.get(worker.name) is not worker or self.router.send(worker.name, messages):
                continue
            if self.router.is_disconnected(worker.name):
                # When it reconnects, its hello shows what it missed.
                if worker.disconnected_mono is None:
                    log.warning("the link to %s is cut", worker.name)
                    worker.disconnected_mono = asyncio.get_running_loop().time()
            else:
                # Its death shows on the pidfd; a living worker that does not read is stuck.
                log.warning("worker %s takes no messages: it is replaced", worker.name)
                worker.child.signal(signal.SIGKILL)

    def replace_silent(self, now_mono: float) -> None:
        """Replace a worker that does not reconnect, and a probe that has gone silent: NVML hangs when a GPU
        is faulty."""
        for worker in list(self.workers.values()):
            if (
                worker.disconnected_mono is not None
                and now_mono - worker.disconnected_mono > RECONNECT_TIMEOUT_S
            ):
                log.error("%s has not come back for %g s: it is replaced", worker.name, RECONNECT_TIMEOUT_S)
                worker.child.signal(signal.SIGKILL)
            if worker.role == "probe" and worker.is_connected:
                silent_s = now_mono - worker.last_message_mono
                if silent_s > PROBE_SILENT_S and not worker.is_killed_as_hung:
                    # Once: a probe that hangs in the driver may not die of it, and no second one is started.
                    worker.is_killed_as_hung = True
                    log.error("the probe has been silent for %.1f s: it is replaced", silent_s)
                    worker.child.signal(signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL all of them; their executors end with them."""
        for worker in list(self.workers.values()):
            worker.child.signal(signal.SIGKILL)

    async def close(self, timeout_s: float) -> None:
        """Tell all to stop, kill those still running after `timeout_s`, and return when all have ended."""
        self._closing = True
        for worker in list(self.workers.values()):
            self.post(worker, encode(Stop()))
        self.flush()
        if not await self._wait_all_exited(timeout_s):
            # They wait for an acknowledgement of their last messages. Without the coordinator they spool
            # them.
            for worker in self.workers.values():
                worker.child.cut_lifeline()
            if not await self._wait_all_exited(SPOOL_WRITE_S):
                self.kill_all()
                if not await self._wait_all_exited(2.0):
                    pids = [worker.child.pid for worker in self.workers.values()]
                    log.error("these processes did not end: %s", pids)
        self.router.close()

    async def _wait_all_exited(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._all_exited.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def _make_name(self, kind: str) -> str:
        return f"{self._marker}.{kind}.{self._epoch}.{secrets.token_hex(3)}"

    def _spawn(
        self, name: str, role: str, device: Device | None, config: WorkerConfig | ProbeConfig
    ) -> WorkerHandle:
        loop = asyncio.get_running_loop()
        child = start_child("worker" if role == "worker" else "probe", config)
        worker = WorkerHandle(name, role, device, child, loop.time())
        self.workers[name] = worker
        self._all_exited.clear()
        loop.add_reader(child.pidfd, self._on_death, worker)
        return worker

    def _send_ack(self, worker: WorkerHandle) -> None:
        if worker.pending_ack is not None and self.workers.get(worker.name) is worker:
            if not worker.pending_messages:
                self._workers_to_flush.append(worker)
            self.flush()

    def _on_hello(self, name: str, hello: Hello) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.child.pid != hello.pid:
            self._on_bad_frame(f"a hello of unknown {name!r}")
            return
        is_new, worker.is_connected, worker.disconnected_mono = not worker.is_connected, True, None
        worker.last_message_mono = asyncio.get_running_loop().time()
        if is_new:
            self._listener.on_worker_connected(worker, hello)
        else:
            self._listener.on_worker_reconnected(worker, hello)

    def _on_frame(self, name: str, messages: list[bytes]) -> None:
        worker = self.workers.get(name)
        if worker is None:
            self._on_bad_frame(f"a frame of unknown {name!r}")
            return
        worker.last_message_mono = asyncio.get_running_loop().time()
        self._listener.on_messages(worker, messages)

    def _on_bad_frame(self, why: str) -> None:
        self.bad_frames += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_bad_log_at:
            self._next_bad_log_at = now + BAD_FRAME_LOG_S
            log.warning("a frame was dropped (%d so far): %s", self.bad_frames, why)

    def _on_death(self, worker: WorkerHandle) -> None:
        loop = asyncio.get_running_loop()
        status = worker.child.reap()
        if status is None:
            return
        loop.remove_reader(worker.child.pidfd)
        worker.child.close()
        self.workers.pop(worker.name, None)
        self.router.forget_peer(worker.name)
        if worker.device is not None and self._by_device.get(worker.device.id) is worker:
            del self._by_device[worker.device.id]
        # Processes that it left in sessions of their own are known by the marker in their environment.
        kill_marked(f"{worker.name}/")
        why = _exit_text(status)
        if not self._closing:
            log.error("%s %s ended: %s", worker.role, worker.name, why)
            self._schedule_restart(worker, loop.time())
        self._listener.on_worker_lost(worker, why)
        if not self.workers:
            self._all_exited.set()

    def _schedule_restart(self, worker: WorkerHandle, now_mono: float) -> None:
        key = worker.device.id if worker.device is not None else "probe"
        backoff = self._backoffs.get(key)
        if backoff is None:
            backoff = RestartBackoff(first_pause_s=RESTART_S[0], max_pause_s=RESTART_S[1])
            self._backoffs[key] = backoff
        if now_mono - worker.started_mono > STABLE_S:
            backoff.reset()
        pause_s = backoff.begin_pause(now_mono)
        asyncio.get_running_loop().call_later(pause_s, self._start_replacement, worker)

    def _start_replacement(self, dead: WorkerHandle) -> None:
        try:
            if dead.device is None:
                self.start_probe()
            else:
                self.start_worker(dead.device)
        except OSError as error:
            # Processes or descriptors ran out: without another try the device would stay without a worker.
            log.error("the %s could not be started: %s", dead.role, error)
            self._schedule_restart(dead, asyncio.get_running_loop().time())


def _exit_text(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit code {os.waitstatus_to_exitcode(status) if status > 255 else status}"

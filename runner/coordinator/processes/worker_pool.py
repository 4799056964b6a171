"""Effect: the worker and probe processes of this node: starts them, speaks to them, sees them die."""

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
from runner.protocol.worker import Ack, Hello, Stop, encode
from runner.protocol.zmq_router import ZmqRouter

log = logging.getLogger(__name__)

#: A dead worker is started again after 0.2 s, then twice as long each time, up to 10 s.
RESTART_S = (0.2, 10.0)
#: A worker that lived so long starts with a clean sheet.
STABLE_S = 30.0
#: A probe that is silent for so long is hung: it is killed and started again.
PROBE_SILENT_S = 5.0
#: A worker whose link is cut connects again by itself; one that has not after so long is replaced.
RECONNECT_TIMEOUT_S = 5.0
#: A worker whose lifeline is cut has so long to write down what nobody acknowledged.
SPOOL_WRITE_S = 0.4
#: That its news is durable is told a worker with the next frame, or so much later: it needs it no sooner,
#: and a frame for that alone would wake three threads just when a client is to get its answer.
ACK_DELAY_S = 0.005
#: Frames that are not ours are all counted; the log tells of one in so long.
BAD_FRAME_LOG_S = 1.0


class WorkerListener(Protocol):
    """Who is told what workers say and when they come and go."""

    def on_worker_connected(self, worker: WorkerHandle, hello: Hello) -> None:
        """It is connected."""

    def on_worker_reconnected(self, worker: WorkerHandle, hello: Hello) -> None:
        """Its link was cut, and it is connected again."""

    def on_messages(self, worker: WorkerHandle, messages: list[bytes]) -> None:
        """It says these."""

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        """Its process has ended."""


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
        #: When it was found that its link is cut; None while it stands.
        self.disconnected_mono: float | None = None
        #: A probe that hangs, and was killed for it.
        self.is_killed_as_hung = False
        #: The highest numbered message that was applied.
        self.last_applied = 0
        #: The highest one that is durable, until the worker is told; None then.
        self.pending_ack: int | None = None
        self.last_message_mono = started_mono
        self.pending_messages: list[bytes] = []


class WorkerPool:
    """All processes that speak the wire with this coordinator."""

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
        #: Begins every worker's name; processes of this data folder are known by it.
        self._marker = marker
        self._worker_config = worker_config
        self._probe_config = probe_config
        self._listener = listener
        #: What every worker of this start has to say first.
        self.token = secrets.token_hex(16)
        self.workers: dict[str, WorkerHandle] = {}
        self._by_device: dict[str, WorkerHandle] = {}
        self._workers_to_flush: list[WorkerHandle] = []
        self._failure_counts: dict[str, int] = {}
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
        """The worker of cpu starts with the first job that needs it; the others start at once."""
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
        """The worker that drives a device, if it lives."""
        return self._by_device.get(device_id)

    def post(self, worker: WorkerHandle, message: bytes) -> None:
        """Put a message into the frame that goes out at the next `flush`."""
        if not worker.pending_messages:
            self._workers_to_flush.append(worker)
        worker.pending_messages.append(message)

    def acknowledge(self, worker: WorkerHandle, seq: int) -> None:
        """All that the worker has said up to `seq` is durable."""
        if worker.pending_ack is None:
            asyncio.get_running_loop().call_later(ACK_DELAY_S, self._send_ack, worker)
        worker.pending_ack = seq

    def flush(self) -> None:
        """Send what this turn has gathered, one frame a worker."""
        waiting, self._workers_to_flush = self._workers_to_flush, []
        for worker in waiting:
            messages, worker.pending_messages = worker.pending_messages, []
            if worker.pending_ack is not None:
                messages.append(encode(Ack(worker.pending_ack)))
                worker.pending_ack = None
            if self.workers.get(worker.name) is not worker or self.router.send(worker.name, messages):
                continue
            if self.router.is_disconnected(worker.name):
                # When it is back its hello tells what it missed.
                if worker.disconnected_mono is None:
                    log.warning("the link to %s is cut", worker.name)
                    worker.disconnected_mono = asyncio.get_running_loop().time()
            else:
                # Its death shows on the pidfd; a living worker that takes nothing is stuck.
                log.warning("worker %s takes no messages: it is replaced", worker.name)
                worker.child.signal(signal.SIGKILL)

    def replace_silent(self, now_mono: float) -> None:
        """Replace a worker that does not come back, and a probe that has gone silent: NVML hangs when a card
        is sick."""
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
                    # Once: one that hangs in the driver may not die of it, and none is started beside it.
                    worker.is_killed_as_hung = True
                    log.error("the probe has been silent for %.1f s: it is replaced", silent_s)
                    worker.child.signal(signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL them; their executors go with them."""
        for worker in list(self.workers.values()):
            worker.child.signal(signal.SIGKILL)

    async def close(self, timeout_s: float) -> None:
        """Tell all to stop; those that did not after `timeout_s` are killed. Returns when all are gone."""
        self._closing = True
        for worker in list(self.workers.values()):
            self.post(worker, encode(Stop()))
        self.flush()
        if not await self._wait_all_exited(timeout_s):
            # They wait for word that their last news is stored. Without us they write it down themselves.
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
        # What it left in sessions of its own is known by the marker in its environment.
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
        failure_count = 0 if now_mono - worker.started_mono > STABLE_S else self._failure_counts.get(key, 0)
        self._failure_counts[key] = failure_count + 1
        delay = min(RESTART_S[1], RESTART_S[0] * 2.0**failure_count)
        asyncio.get_running_loop().call_later(delay, self._start_replacement, worker)

    def _start_replacement(self, dead: WorkerHandle) -> None:
        try:
            if dead.device is None:
                self.start_probe()
            else:
                self.start_worker(dead.device)
        except OSError as error:
            # No process or descriptor to be had: without another try its device would stay dark.
            log.error("the %s could not be started: %s", dead.role, error)
            self._schedule_restart(dead, asyncio.get_running_loop().time())


def _exit_text(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit code {os.waitstatus_to_exitcode(status) if status > 255 else status}"

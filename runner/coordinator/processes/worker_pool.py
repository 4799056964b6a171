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
from runner.protocol.zmq_router import Router

log = logging.getLogger(__name__)

#: A dead worker is started again after 0.2 s, then twice as long each time, up to 10 s.
RESTART_S = (0.2, 10.0)
#: A worker that lived so long starts with a clean sheet.
STEADY_S = 30.0
#: A probe that is silent for so long is hung: it is killed and started again.
PROBE_SILENT_S = 5.0
#: A worker whose link is cut connects again by itself; one that has not after so long is replaced.
LINK_S = 5.0
#: A worker whose lifeline is cut has so long to write down what nobody acknowledged.
SPOOL_S = 0.4
#: That its news is durable is told a worker with the next frame, or so much later: it needs it no sooner,
#: and a frame for that alone would wake three threads just when a client is to get its answer.
ACK_S = 0.005
#: Frames that are not ours are all counted; the log tells of one in so long.
BAD_LOG_S = 1.0


class Listener(Protocol):
    """Who is told what workers say and when they come and go."""

    def on_worker(self, worker: Worker, hello: Hello) -> None:
        """It is connected."""

    def on_worker_again(self, worker: Worker, hello: Hello) -> None:
        """Its link was cut, and it is connected again."""

    def on_messages(self, worker: Worker, messages: list[bytes]) -> None:
        """It says these."""

    def on_worker_lost(self, worker: Worker, why: str) -> None:
        """Its process has ended."""


class Worker:
    """One worker or probe process, from its start to its death."""

    def __init__(
        self, name: str, role: str, device: Device | None, child: Child, started_mono: float
    ) -> None:
        self.name = name
        self.role = role
        self.device = device
        self.child = child
        self.started_mono = started_mono
        self.connected = False
        #: When it was found that its link is cut; None while it stands.
        self.cut_mono: float | None = None
        #: A probe that hangs, and was killed for it.
        self.is_given_up = False
        #: The highest numbered message that was applied.
        self.heard = 0
        #: The highest one that is durable, until the worker is told; None then.
        self.durable: int | None = None
        self.last_heard_mono = started_mono
        self.outbox: list[bytes] = []


class Fleet:
    """All processes that speak the wire with this coordinator."""

    def __init__(
        self,
        *,
        runtime: Path,
        epoch: int,
        marker: str,
        worker_config: Callable[[str, Device, str, str], WorkerConfig],
        probe_config: Callable[[str, str, str], ProbeConfig],
        listener: Listener,
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
        self.workers: dict[str, Worker] = {}
        self._by_device: dict[str, Worker] = {}
        self._waiting_out: list[Worker] = []
        self._fails: dict[str, int] = {}
        self._closing = False
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self.bad_frames = 0
        self._bad_log_at = 0.0
        self.router = Router(
            self._endpoint,
            self.token,
            on_frame=self._on_frame,
            on_hello=self._on_hello,
            on_bad=self._on_bad,
        )

    def open(self) -> None:
        """Bind the socket for workers."""
        self.router.open()

    def start_worker(self, device: Device) -> None:
        """Start the worker of a device unless it has one."""
        if self._closing or device.id in self._by_device:
            return
        name = self._name(device.id)
        config = self._worker_config(name, device, self._endpoint, self.token)
        worker = self._spawn(name, "worker", device, config)
        self._by_device[device.id] = worker

    def start_missing(self, devices: Iterable[Device]) -> None:
        """The worker of cpu starts with the first job that needs it; the others start at once."""
        for device in devices:
            if device.kind == "cpu":
                self.start_worker(device)

    def start_probe(self) -> None:
        """Start the probe of this node's devices."""
        if self._closing:
            return
        name = self._name("probe")
        self._spawn(name, "probe", None, self._probe_config(name, self._endpoint, self.token))

    def of_device(self, device_id: str) -> Worker | None:
        """The worker that drives a device, if it lives."""
        return self._by_device.get(device_id)

    def post(self, worker: Worker, message: bytes) -> None:
        """Put a message into the frame that goes out at the next `flush`."""
        if not worker.outbox:
            self._waiting_out.append(worker)
        worker.outbox.append(message)

    def acknowledge(self, worker: Worker, seq: int) -> None:
        """All that the worker has said up to `seq` is durable."""
        if worker.durable is None:
            asyncio.get_running_loop().call_later(ACK_S, self._tell_durable, worker)
        worker.durable = seq

    def flush(self) -> None:
        """Send what this turn has gathered, one frame a worker."""
        waiting, self._waiting_out = self._waiting_out, []
        for worker in waiting:
            messages, worker.outbox = worker.outbox, []
            if worker.durable is not None:
                messages.append(encode(Ack(worker.durable)))
                worker.durable = None
            if self.workers.get(worker.name) is not worker or self.router.send(worker.name, messages):
                continue
            if self.router.is_cut(worker.name):
                # When it is back its hello tells what it missed.
                if worker.cut_mono is None:
                    log.warning("the link to %s is cut", worker.name)
                    worker.cut_mono = asyncio.get_running_loop().time()
            else:
                # Its death shows on the pidfd; a living worker that takes nothing is stuck.
                log.warning("worker %s takes no messages: it is replaced", worker.name)
                worker.child.signal(signal.SIGKILL)

    def check(self, now_mono: float) -> None:
        """Replace a worker that does not come back, and a probe that has gone silent: NVML hangs when a card
        is sick."""
        for worker in list(self.workers.values()):
            if worker.cut_mono is not None and now_mono - worker.cut_mono > LINK_S:
                log.error("%s has not come back for %g s: it is replaced", worker.name, LINK_S)
                worker.child.signal(signal.SIGKILL)
            if worker.role == "probe" and worker.connected:
                silent = now_mono - worker.last_heard_mono
                if silent > PROBE_SILENT_S and not worker.is_given_up:
                    # Once: one that hangs in the driver may not die of it, and none is started beside it.
                    worker.is_given_up = True
                    log.error("the probe has been silent for %.1f s: it is replaced", silent)
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
        if not await self._are_gone(timeout_s):
            # They wait for word that their last news is stored. Without us they write it down themselves.
            for worker in self.workers.values():
                worker.child.cut_lifeline()
            if not await self._are_gone(SPOOL_S):
                self.kill_all()
                if not await self._are_gone(2.0):
                    pids = [worker.child.pid for worker in self.workers.values()]
                    log.error("these processes did not end: %s", pids)
        self.router.close()

    async def _are_gone(self, within_s: float) -> bool:
        try:
            await asyncio.wait_for(self._all_gone.wait(), within_s)
        except TimeoutError:
            return False
        return True

    def _name(self, what: str) -> str:
        return f"{self._marker}.{what}.{self._epoch}.{secrets.token_hex(3)}"

    def _spawn(
        self, name: str, role: str, device: Device | None, config: WorkerConfig | ProbeConfig
    ) -> Worker:
        loop = asyncio.get_running_loop()
        child = start_child("worker" if role == "worker" else "probe", config)
        worker = Worker(name, role, device, child, loop.time())
        self.workers[name] = worker
        self._all_gone.clear()
        loop.add_reader(child.pidfd, self._on_death, worker)
        return worker

    def _tell_durable(self, worker: Worker) -> None:
        if worker.durable is not None and self.workers.get(worker.name) is worker:
            if not worker.outbox:
                self._waiting_out.append(worker)
            self.flush()

    def _on_hello(self, name: str, hello: Hello) -> None:
        worker = self.workers.get(name)
        if worker is None or worker.child.pid != hello.pid:
            self._on_bad(f"a hello of unknown {name!r}")
            return
        is_new, worker.connected, worker.cut_mono = not worker.connected, True, None
        worker.last_heard_mono = asyncio.get_running_loop().time()
        if is_new:
            self._listener.on_worker(worker, hello)
        else:
            self._listener.on_worker_again(worker, hello)

    def _on_frame(self, name: str, messages: list[bytes]) -> None:
        worker = self.workers.get(name)
        if worker is None:
            self._on_bad(f"a frame of unknown {name!r}")
            return
        worker.last_heard_mono = asyncio.get_running_loop().time()
        self._listener.on_messages(worker, messages)

    def _on_bad(self, why: str) -> None:
        self.bad_frames += 1
        now = asyncio.get_running_loop().time()
        if now >= self._bad_log_at:
            self._bad_log_at = now + BAD_LOG_S
            log.warning("a frame was dropped (%d so far): %s", self.bad_frames, why)

    def _on_death(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        status = worker.child.reap()
        if status is None:
            return
        loop.remove_reader(worker.child.pidfd)
        worker.child.close()
        self.workers.pop(worker.name, None)
        self.router.forget(worker.name)
        if worker.device is not None and self._by_device.get(worker.device.id) is worker:
            del self._by_device[worker.device.id]
        # What it left in sessions of its own is known by the marker in its environment.
        kill_marked(f"{worker.name}/")
        why = _cause(status)
        if not self._closing:
            log.error("%s %s ended: %s", worker.role, worker.name, why)
            self._restart(worker, loop.time())
        self._listener.on_worker_lost(worker, why)
        if not self.workers:
            self._all_gone.set()

    def _restart(self, worker: Worker, now_mono: float) -> None:
        key = worker.device.id if worker.device is not None else "probe"
        fails = 0 if now_mono - worker.started_mono > STEADY_S else self._fails.get(key, 0)
        self._fails[key] = fails + 1
        delay = min(RESTART_S[1], RESTART_S[0] * 2.0**fails)
        asyncio.get_running_loop().call_later(delay, self._start_again, worker)

    def _start_again(self, dead: Worker) -> None:
        try:
            if dead.device is None:
                self.start_probe()
            else:
                self.start_worker(dead.device)
        except OSError as error:
            # No process or descriptor to be had: without another try its device would stay dark.
            log.error("the %s could not be started: %s", dead.role, error)
            self._restart(dead, asyncio.get_running_loop().time())


def _cause(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit code {os.waitstatus_to_exitcode(status) if status > 255 else status}"

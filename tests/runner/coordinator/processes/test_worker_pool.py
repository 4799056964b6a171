"""A worker is told what is durable: with what goes to it anyway, or by itself a little later."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runner.coordinator.processes.local_process import LocalProcess
from runner.coordinator.processes.worker_connection import WorkerConnection
from runner.coordinator.processes.worker_pool import WorkerHandle, WorkerPool, WorkerRole
from runner.processes.child import Child, ProbeConfig, WorkerConfig
from runner.processes.orphans import MARKER
from runner.processes.pulse import SILENT_PINGS_MAX
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import Ack, Hello, RecallAttempts, WorkerPing, WorkerPong
from runner.protocol.zmq_dealer import ZmqDealer
from tests.runner.coordinator.lifecycle_harness import CPU


class Known:
    """Listens to a fleet, and knows when its worker is connected."""

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.told: list[str] = []

    def on_worker_connected(self, worker: WorkerHandle, hello: Hello) -> None:
        self.connected.set()

    def on_worker_reconnected(self, worker: WorkerHandle, hello: Hello) -> None: ...
    def on_messages(self, worker: WorkerHandle, messages: list[bytes]) -> None: ...

    def on_worker_lost(self, worker: WorkerHandle, why: str) -> None:
        self.told.append("lost")

    def on_worker_hung(self, worker: WorkerHandle) -> None:
        self.told.append("hung")

    def on_worker_stuck(self, worker: WorkerHandle) -> None:
        self.told.append("stuck")


class WatchedPool(WorkerPool):
    """A fleet with what its listener was told, and the link of the worker that the test plays."""

    dealer: ZmqDealer
    listener_told: list[str]


Frames = asyncio.Queue[list[bytes]]
Check = Callable[[WatchedPool, WorkerHandle, Frames], Awaitable[None]]


def linked(folder: Path, check: Check, role: WorkerRole = "worker") -> None:
    """Run `check` with a fleet to which one worker, played by the test, is linked."""

    def worker_config(name: str, device: object, endpoint: str, token: str) -> WorkerConfig:
        raise AssertionError

    def probe_config(name: str, endpoint: str, token: str) -> ProbeConfig:
        raise AssertionError

    async def body() -> None:
        known, frames = Known(), Frames()
        fleet = WatchedPool(
            runtime=folder,
            epoch=1,
            marker="r",
            worker_config=worker_config,
            probe_config=probe_config,
            listener=known,
        )
        process = subprocess.Popen(["sleep", "60"])
        ours, theirs = socket.socketpair()
        theirs.close()
        worker = WorkerHandle(
            role,
            CPU,
            WorkerConnection("w", "n"),
            LocalProcess(Child("worker", process, ours), started_mono=0.0),
        )
        fleet.workers["w"] = worker
        fleet.open()
        dealer = ZmqDealer(
            f"ipc://{folder}/workers.sock",
            on_frame=frames.put_nowait,
            on_link=lambda: _say(dealer, _hello(fleet.token, process.pid)),
        )
        dealer.open()
        fleet.dealer, fleet.listener_told = dealer, known.told
        try:
            await asyncio.wait_for(known.connected.wait(), 10)
            await asyncio.wait_for(check(fleet, worker, frames), 10)
        finally:
            dealer.close()
            fleet.router.close()
            process.kill()
            process.wait()
            worker.process.child.close()

    asyncio.run(body())


def _say(dealer: ZmqDealer, message: bytes) -> None:
    assert dealer.send([message])


def _hello(token: str, pid: int) -> bytes:
    return worker_protocol.encode(Hello(worker_protocol.PROTOCOL, token, "n", "worker", "w", pid, 1))


def decoded(frame: list[bytes]) -> list[worker_protocol.ToWorker]:
    return [worker_protocol.to_worker_decoder.decode(message) for message in frame]


def test_a_probe_that_hangs_is_killed_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(fleet: WatchedPool, worker: WorkerHandle, frames: Frames) -> None:
        for second in range(10):
            fleet.ping_all(float(second))
        assert await asyncio.to_thread(worker.process.child.process.wait, 5) == -9

    linked(tmp_path, check, role="probe")
    assert [record.getMessage() for record in caplog.records] == [
        "probe w has been silent for 5 s: it is replaced"
    ]


def test_a_worker_that_does_not_answer_is_killed(tmp_path: Path) -> None:
    async def check(fleet: WatchedPool, worker: WorkerHandle, frames: Frames) -> None:
        for second in range(SILENT_PINGS_MAX):
            fleet.ping_all(float(second))
        assert decoded(await frames.get()) == [WorkerPing()]
        assert fleet.listener_told == [] and not worker.is_answering
        fleet.ping_all(float(SILENT_PINGS_MAX))
        assert fleet.listener_told == ["hung"]
        assert await asyncio.to_thread(worker.process.child.process.wait, 5) == -9

    linked(tmp_path, check)


def test_a_worker_that_answers_pings_is_left_alone(tmp_path: Path) -> None:
    async def check(fleet: WatchedPool, worker: WorkerHandle, frames: Frames) -> None:
        for second in range(3 * SILENT_PINGS_MAX):
            fleet.ping_all(float(second))
            assert decoded(await frames.get()) == [WorkerPing()]
            fleet.dealer.send([worker_protocol.encode(WorkerPong())])
            while worker.pulse.unanswered_pings:
                await asyncio.sleep(0)
        assert worker.is_answering and worker.process.child.reap() is None

    linked(tmp_path, check)


def test_a_worker_that_the_kernel_cannot_end_is_told_of_once(tmp_path: Path) -> None:
    """Its exit shows on no pidfd here, as where it is in an uninterruptible call."""

    async def check(fleet: WatchedPool, worker: WorkerHandle, frames: Frames) -> None:
        for second in range(SILENT_PINGS_MAX + 20):
            fleet.ping_all(float(second))
        assert fleet.listener_told == ["hung", "stuck"]
        assert fleet.workers == {"w": worker}

    linked(tmp_path, check)


def test_an_acknowledgement_goes_with_the_next_frame(tmp_path: Path) -> None:
    async def check(fleet: WatchedPool, worker: WorkerHandle, frames: Frames) -> None:
        fleet.acknowledge(worker, 3)
        fleet.acknowledge(worker, 7)
        fleet.post(worker, worker_protocol.encode(RecallAttempts(1)))
        fleet.flush()
        assert decoded(await frames.get()) == [RecallAttempts(1), Ack(7)]
        # Told once: the next frame carries only what is its own.
        fleet.post(worker, worker_protocol.encode(RecallAttempts(2)))
        fleet.flush()
        assert decoded(await frames.get()) == [RecallAttempts(2)]

    linked(tmp_path, check)


def test_messages_of_one_turn_travel_in_frames_of_a_bounded_size(tmp_path: Path) -> None:
    async def check(fleet: WorkerPool, worker: WorkerHandle, frames: Frames) -> None:
        sizes = [15 << 20] * 7 + [1, 2]
        for size in sizes:
            fleet.post(worker, bytes(size))
        fleet.flush()
        got = [await frames.get() for _ in range(8)]
        assert [[len(message) for message in frame] for frame in got] == [[15 << 20]] * 7 + [[1, 2]]

    linked(tmp_path, check)


def test_an_acknowledgement_goes_alone_where_nothing_else_does(tmp_path: Path) -> None:
    async def check(fleet: WatchedPool, worker: WorkerHandle, frames: Frames) -> None:
        fleet.acknowledge(worker, 3)
        assert decoded(await frames.get()) == [Ack(3)]

    linked(tmp_path, check)


def test_a_lost_worker_is_told_of_and_its_processes_killed_though_descriptors_run_out(tmp_path: Path) -> None:
    async def check(fleet: WatchedPool, worker: WorkerHandle, frames: Frames) -> None:
        left = subprocess.Popen(["sleep", "60"], env={MARKER: "w/1"})
        try:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                fleet._on_lost(worker, -9)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert fleet.listener_told == ["lost"] and left.poll() is None
            assert await asyncio.to_thread(left.wait, 5) == -9
        finally:
            left.kill()
            left.wait()

    linked(tmp_path, check)

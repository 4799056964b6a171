"""The probe process: what it finds, what it reads, and when it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gpu.devices.device import Device
from runner.processes import child as child_processes
from runner.processes.child import ProbeConfig
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import DeviceReadings, DevicesFound, Hello, Stop
from runner.protocol.zmq_router import ZmqRouter


class Listener:
    """Collects what one probe says."""

    def __init__(self, folder: Path, gpus: str) -> None:
        self.config = ProbeConfig(f"ipc://{folder}/s", "secret", "here", "probe-1", 1, gpus, interval_s=0.05)
        self.router = ZmqRouter(
            self.config.endpoint, "secret", on_frame=self.on_frame, on_hello=self.on_hello, on_bad_frame=print
        )
        self.hellos: list[Hello] = []
        self.seen: list[object] = []
        self.news = asyncio.Event()

    def on_hello(self, name: str, hello: Hello) -> None:
        self.hellos.append(hello)

    def on_frame(self, name: str, messages: list[bytes]) -> None:
        self.seen += map(worker_protocol.from_worker_decoder.decode, messages)
        self.news.set()

    async def next(self) -> None:
        self.news.clear()
        await asyncio.wait_for(self.news.wait(), 10)


def test_devices_then_readings_then_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        listener = Listener(tmp_path, "sim:2x1GiB")
        listener.router.open()
        child = child_processes.start_child("probe", listener.config)
        while len([each for each in listener.seen if isinstance(each, DeviceReadings)]) < 2:
            await listener.next()
        found = listener.seen[0]
        assert isinstance(found, DevicesFound) and listener.hellos[0].role == "probe"
        assert [Device.from_dict(each).id for each in found.devices] == ["sim0", "sim1", "cpu"]
        reading = listener.seen[1]
        assert isinstance(reading, DeviceReadings)
        assert reading.devices[0][0] == "cpu" and reading.devices[0][1] > 0
        assert listener.router.send("probe-1", [worker_protocol.encode(Stop())])
        assert await asyncio.to_thread(child.process.wait, 5) == 0
        child.close()
        listener.router.close()

    asyncio.run(scenario())


def test_wrong_request_is_told_and_probe_ends_with_its_parent(tmp_path: Path) -> None:
    async def scenario() -> None:
        listener = Listener(tmp_path, "77")
        listener.router.open()
        child = child_processes.start_child("probe", listener.config)
        while not listener.seen:
            await listener.next()
        found = listener.seen[0]
        assert isinstance(found, DevicesFound) and found.error and "77" in found.error
        child.lifeline.close()
        assert await asyncio.to_thread(child.process.wait, 5) == 0
        child.close()
        listener.router.close()

    asyncio.run(scenario())

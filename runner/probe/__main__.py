"""Effect: the probe process: finds the node's devices once, then reads their memory and errors periodically.

Calls into a driver may block for ever. Only this process blocks then: the coordinator notices that readings
are missing and starts another probe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Mapping

from gpu.devices.device import parse_gpus
from gpu.devices.discovery import DeviceError, DeviceSampler, FoundDevices, find_devices
from runner.processes import child as child_processes
from runner.processes import logs
from runner.processes.child import ProbeConfig
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import DeviceReadings, DevicesFound, Hello, Stop
from runner.protocol.zmq_dealer import ZmqDealer

log = logging.getLogger(__name__)

#: Longest time, in seconds, between two readings sent, changed or not.
SILENCE_MAX_S = 2.0
#: Interval, in seconds, between two readings of the GPUs: a shorter peak may be missed.
GPU_INTERVAL_S = 0.25
#: Xid errors kept while the connection is down, the oldest dropped first.
XIDS_MAX = 256


class Probe:
    """Sends `Hello`, `DevicesFound` and then `DeviceReadings`.

    After a reconnect the first two are sent again. `environ` is read for CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, config: ProbeConfig, environ: Mapping[str, str]) -> None:
        self._config, self._environ = config, environ
        self._dealer = ZmqDealer(config.endpoint, on_frame=self._on_frame, on_link=self._on_link)
        self._devices: DevicesFound | None = None
        self._sampler: DeviceSampler | None = None
        self._last_sent: DeviceReadings | None = None
        self._last_sent_mono = 0.0
        self._interval_s = config.interval_s
        #: (device id, Xid) of errors that have not been sent yet.
        self._xids: list[tuple[str, int]] = []

    async def run(self) -> int:
        """Run until the coordinator sends `Stop`; return the exit status."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._done: asyncio.Future[None] = loop.create_future()
        self._dealer.open()
        await self._done
        self._dealer.close()
        return 0

    def _on_link(self) -> None:
        """Report the probe and, if they are known, its devices on a new connection."""
        config = self._config
        hello = Hello(
            worker_protocol.PROTOCOL,
            config.token,
            config.node,
            "probe",
            config.name,
            os.getpid(),
            config.epoch,
        )
        self._last_sent = None
        if self._devices is None:
            # Send the hello first: it distinguishes a hung driver from a probe that did not start.
            self._dealer.send([worker_protocol.encode(hello)])
            self._loop.call_soon(self._find)
        else:
            self._dealer.send([worker_protocol.encode(hello), worker_protocol.encode(self._devices)])

    def _find(self) -> None:
        """Find the devices, or the error that prevents it, and report them."""
        if self._devices is not None:
            return
        try:
            found = find_devices(
                parse_gpus(self._config.gpus),
                self._environ,
                max_executors=self._config.max_executors,
                headroom_bytes=self._config.headroom_bytes,
                max_resident=self._config.max_resident,
            )
            self._devices = DevicesFound(
                [device.to_dict() for device in found.devices], found.notes, driver=found.driver
            )
        except (DeviceError, ValueError) as error:
            found = FoundDevices([])
            self._devices = DevicesFound([], error=str(error))
        self._dealer.send([worker_protocol.encode(self._devices)])
        if found.devices:
            self._sampler = DeviceSampler(found.devices)
            if any(device.kind == "nvidia" for device in found.devices):
                self._interval_s = min(GPU_INTERVAL_S, self._interval_s)
            self._read()

    def _read(self) -> None:
        """Read all devices; send the readings if they changed or nothing was sent for SILENCE_MAX_S."""
        assert self._sampler is not None
        sample = self._sampler.read_sample()
        # The driver reports each error only once: keep unsent ones for the next reading.
        self._xids = (self._xids + sample.xids)[-XIDS_MAX:]
        readings = DeviceReadings(sample.devices, sample.processes, sample.faults, self._xids)
        now = self._loop.time()
        is_news = readings != self._last_sent or now - self._last_sent_mono >= SILENCE_MAX_S
        if is_news and self._dealer.send([worker_protocol.encode(readings)]):
            self._last_sent, self._last_sent_mono = readings, now
            self._xids = []
        self._loop.call_later(self._interval_s, self._read)

    def _on_frame(self, messages: list[bytes]) -> None:
        """Handle messages of the coordinator; `Stop` ends the probe."""
        for message in messages:
            try:
                command = worker_protocol.to_worker_decoder.decode(message)
            except worker_protocol.UNDECODABLE as error:
                log.error("cannot decode a message of the coordinator: %s", error)
                continue
            if isinstance(command, Stop) and not self._done.done():
                self._done.set_result(None)


def main() -> int:
    """Run the probe configured by the lifeline; return its exit status."""
    config, lifeline = child_processes.read_config(
        int(sys.argv[sys.argv.index("--lifeline") + 1]), ProbeConfig
    )
    child_processes.ignore_terminal_signals()
    logs.configure(config.log_format, config.log_level, "probe")
    threading.Thread(target=_exit_with_lifeline, args=(lifeline,), name="lifeline", daemon=True).start()
    return asyncio.run(Probe(config, os.environ).run())


def _exit_with_lifeline(lifeline: socket.socket) -> None:
    """Exit when the lifeline ends. Runs in its own thread: the main thread may be stuck in a driver."""
    try:
        while lifeline.recv(4096):
            continue
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

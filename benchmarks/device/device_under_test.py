"""Effect: the GPU that is measured, the driver's word on it, and servers and processes that use it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.http_client import BenchmarkFailed
from gpu.devices.device import parse_gpus
from gpu.devices.discovery import DeviceError, driver_version, find_devices
from runner.testing import ServedClient, Server

ROOT = Path(__file__).resolve().parents[2]
HANDLERS = ROOT / "benchmarks" / "device" / "handlers.py"
#: What the measurements need free on a device.
NEEDED_BYTES = 10 << 30
#: How often the driver is asked how busy the device is, and how full while it is to become empty.
LOOK_S, POLL_S = 0.05, 0.002


class NoGpu(Exception):
    """There is none to measure on; says why."""


class DeviceUnderTest:
    """One GPU. `nvml` is the driver's library, `env` what is laid over the environment of processes."""

    def __init__(self, name: str, nvml: Any, env: dict[str, str]) -> None:
        self._nvml, self._env = nvml, env
        try:
            found = find_devices(parse_gpus(name), os.environ, nvml=nvml)
        except (DeviceError, ValueError) as error:
            raise NoGpu(str(error)) from error
        self.device = found.devices[0]
        if self.device.kind != "nvidia":
            raise NoGpu("; ".join(found.notes))
        self.driver = driver_version(nvml)
        nvml.nvmlInit()
        self._handle = nvml.nvmlDeviceGetHandleByUUID(self.device.uuid)
        if self._memory().free < NEEDED_BYTES:
            free = self._memory().free >> 20
            raise NoGpu(f"{self.device.name} has {free} MiB free, and {NEEDED_BYTES >> 20} are needed")

    def used_bytes(self) -> int:
        """Bytes that are taken of it, by anybody."""
        return int(self._memory().used)

    def wait_until_used_at_most(self, nbytes: int, within_s: float) -> None:
        """Back as soon as no more than that is taken."""
        rest = threading.Event()
        for _ in range(int(within_s / POLL_S)):
            if self.used_bytes() <= nbytes:
                return
            rest.wait(POLL_S)
        raise BenchmarkFailed(f"{self.used_bytes() >> 20} MiB are still taken {within_s:g} s after a kill")

    @contextmanager
    def measure_usage(self) -> Iterator[Callable[[], tuple[float | None, int]]]:
        """Gives how busy the device was inside the block (mean %, by the driver; None: it does not tell), and
        its fullest (bytes)."""
        busy: list[int] = []
        full: list[int] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(LOOK_S):
                full.append(self.used_bytes())
                try:
                    busy.append(int(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu))
                except self._nvml.NVMLError_NotSupported:
                    # Of an instance of a card that is split up the driver does not tell it.
                    continue

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield lambda: (sum(busy) / len(busy) if busy else None, max(full, default=0))
        finally:
            over.set()
            thread.join()

    @contextmanager
    def serve(self, *, at_once: int) -> Iterator[ServedClient]:
        """A client of a server that has this device alone, and runs `at_once` executors on it."""
        settings: dict[str, Any] = {"devices": {"max_executors": at_once}, "log_level": "warning"}
        with (
            Server([str(HANDLERS)], gpus=self.device.uuid, env=self._env, grace_s="1s", **settings) as server,
            server.client() as client,
        ):
            yield client

    @contextmanager
    def run_plain(self) -> Iterator[Callable[[str], Any]]:
        """A plain process on the device that answers questions, see `plain.py`."""
        mask = {"CUDA_VISIBLE_DEVICES": self.device.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.device.plain"],
            env=os.environ | {"PYTHONPATH": path} | self._env | mask,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(question: str) -> Any:
            try:
                print(question, file=stdin, flush=True)
            except BrokenPipeError as error:
                raise BenchmarkFailed(f"the plain process ended with {process.wait()}") from error
            line = stdout.readline()
            if not line:
                raise BenchmarkFailed(f"the plain process ended with {process.wait()}")
            return json.loads(line)

        try:
            yield ask
        finally:
            process.kill()
            process.communicate()

    def _memory(self) -> Any:
        try:
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2)
        except self._nvml.NVMLError_FunctionNotFound:
            return self._nvml.nvmlDeviceGetMemoryInfo(self._handle)

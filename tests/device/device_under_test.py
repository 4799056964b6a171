"""Effect: the GPU that device tests run on: a real one, or one that is made up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from runner.testing import ServedClient, Server
from tests.fakes.fake_gpus import GIB

HANDLERS = Path(__file__).with_name("handlers.py")
#: What the tests need free on a device.
NEEDED_BYTES = 12 * GIB


class DeviceUnderTest:
    """One device, the driver that tells of it, and servers that use it alone."""

    def __init__(self, nvml: ModuleType, env: dict[str, str], *, is_real: bool) -> None:
        self.is_real = is_real
        self._nvml, self._env = nvml, env
        nvml.nvmlInit()
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        self.uuid = str(nvml.nvmlDeviceGetUUID(self._handle))
        self.name = str(nvml.nvmlDeviceGetName(self._handle))

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.nvmlShutdown()

    @contextmanager
    def serve(self, **settings: Any) -> Iterator[ServedClient]:
        """A client of a server with the handlers of this folder."""
        with (
            Server([str(HANDLERS)], gpus=self.uuid, env=self._env, grace_s="1s", **settings) as server,
            server.client() as client,
        ):
            yield client

    def used_bytes(self) -> int:
        """Bytes that are taken of the device, by anybody."""
        return int(self._memory().used)

    def free_bytes(self) -> int:
        """Bytes that nobody has taken."""
        return int(self._memory().free)

    def lists_processes(self, *pids: int) -> bool:
        """Whether the driver tells of these; in containers it tells of others' numbers, or of none."""
        listed = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        return set(pids) <= {each.pid for each in listed}

    def _memory(self) -> Any:
        return self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2)


@cache
def find_obstacle() -> str | None:
    """Why there is no real GPU to test on; None where there is one."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"there is no NVIDIA GPU here ({error})"
    try:
        if not pynvml.nvmlDeviceGetCount():
            return "there is no NVIDIA GPU here (the driver knows none)"
        memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
        if memory.free < NEEDED_BYTES:
            return f"GPU 0 has {memory.free >> 20} MiB free, and the tests need {NEEDED_BYTES >> 20}"
    finally:
        pynvml.nvmlShutdown()
    return _find_torch_obstacle()


def _find_torch_obstacle() -> str | None:
    # In a process of its own: this one is to open no context on the device.
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        return f"torch can't use the GPU here: {done.stderr[-300:] or 'it is a build without CUDA'}"
    return None

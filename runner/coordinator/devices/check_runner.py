"""Effect: checks a device in a process of its own, with a timeout, and reports the result."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from gpu.devices import visibility
from gpu.devices.device import Device
from runner.executor.device_check import CANNOT_TELL, WORKS
from runner.processes.orphans import MARKER

#: Importing torch may take seconds, creating a context some more; a driver that takes longer hangs.
CHECK_TIMEOUT_S = 30.0
_OUTPUT_MAX_BYTES = 4096


class DeviceCheckRunner:
    """Runs device checks. A device is not checked again while its last check process survives SIGKILL."""

    def __init__(self, env: Mapping[str, str], marker: str, *, timeout_s: float = CHECK_TIMEOUT_S) -> None:
        #: The environment of executors.
        self._env = env
        #: Prefix of the marker by which processes that a dead server left behind are found.
        self._marker = marker
        self._timeout_s = timeout_s
        self._hung: dict[str, subprocess.Popen[bytes]] = {}

    async def run_check(self, device: Device) -> str | None:
        """Return the fault of the device; None if none was found. Simulated devices always pass, and without
        a torch for CUDA good readings have to be enough."""
        if device.kind != "nvidia":
            return None
        hung = self._hung.get(device.id)
        if hung is not None and hung.poll() is None:
            return f"the process of the last check (pid {hung.pid}) still hangs"
        self._hung.pop(device.id, None)
        env = {
            **self._env,
            **visibility.visibility_environment([device]),
            MARKER: f"{self._marker}.checkup.{device.id}/0",
        }
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "runner.executor.device_check"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=env,
            )
        except OSError as error:
            return f"no process could be started: {error}"
        return await self._wait_for_result(device, process)

    async def _wait_for_result(self, device: Device, process: subprocess.Popen[bytes]) -> str | None:
        assert process.stdout is not None
        with process.stdout as stdout:
            try:
                is_late = not await _wait_exited(process, self._timeout_s)
            finally:
                # Also when the server shuts down meanwhile.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if is_late:
                if await _wait_exited(process, 1.0):
                    process.wait()
                else:
                    self._hung[device.id] = process
                return f"no answer within {self._timeout_s:g} s"
            output = stdout.read(_OUTPUT_MAX_BYTES).decode("utf-8", "replace").strip()
        status = process.wait()
        if status in (WORKS, CANNOT_TELL):
            return None
        return output or f"the process that tried it ended with {status}"


async def _wait_exited(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the process exits in time; its output fits into the pipe, so it never blocks on a reader."""
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    loop.add_reader(pidfd, exited.set)
    try:
        await asyncio.wait_for(exited.wait(), timeout_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return True

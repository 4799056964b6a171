"""Effect: runs the health check of a device in a separate process, with a timeout."""

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

#: Seconds for one check. Importing torch may take seconds, creating a context some more; a driver that takes
#: longer hangs.
CHECK_TIMEOUT_S = 30.0
#: Bytes of output that are read: the fault in one line. They fit into a pipe, so the process never blocks.
_OUTPUT_MAX_BYTES = 4096


class DeviceCheckRunner:
    """Runs device checks. A device is not checked again while its last check process survives SIGKILL.

    `timeout_s` bounds each check; it is shorter in tests.
    """

    def __init__(self, env: Mapping[str, str], marker: str, *, timeout_s: float = CHECK_TIMEOUT_S) -> None:
        #: The environment of executors.
        self._env = env
        #: Prefix of the marker by which processes that a dead server left behind are found.
        self._marker = marker
        self._timeout_s = timeout_s
        #: Device -> a check process that survived SIGKILL.
        self._hung: dict[str, subprocess.Popen[bytes]] = {}

    async def run_check(self, device: Device) -> str | None:
        """Check a device; return its fault, or None if none was found. Only NVIDIA devices are checked.
        Without a torch with CUDA nothing can be computed, and the check passes: the readings must be good
        enough."""
        if device.kind != "nvidia":
            return None
        hung = self._hung.get(device.id)
        if hung is not None and hung.poll() is None:
            return f"the last check process (pid {hung.pid}) survived SIGKILL and still hangs"
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
            return f"cannot start the check process: {error}"
        return await self._wait_for_result(device, process)

    async def _wait_for_result(self, device: Device, process: subprocess.Popen[bytes]) -> str | None:
        """Wait for the check process and kill its group; return the fault that the process found or
        caused."""
        assert process.stdout is not None
        with process.stdout as stdout:
            try:
                is_late = not await _wait_exited(process, self._timeout_s)
            finally:
                # Also if the server shuts down meanwhile and cancels this task.
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
        return output or f"the check process exited with {status}"


async def _wait_exited(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the process to exit; return whether it did within `timeout_s`. The process is not reaped."""
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

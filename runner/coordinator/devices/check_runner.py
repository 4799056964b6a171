"""Effect: has a device tried out by a process of its own, within a time, and gives what it found."""

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

#: torch may take seconds to import, a context some more; a driver that takes longer hangs.
WITHIN_S = 30.0
_WORDS_MAX_BYTES = 4096


class Checkup:
    """Tries devices out. One whose last trial does not die of SIGKILL is not tried again before it has."""

    def __init__(self, env: Mapping[str, str], marker: str, *, within_s: float = WITHIN_S) -> None:
        #: The environment of executors.
        self._env = env
        #: Begins the mark by which what a dead server left behind is found.
        self._marker = marker
        self._within_s = within_s
        self._hung: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self, device: Device) -> str | None:
        """What is wrong with the device; None: nothing that could be found. Simulated ones are always well,
        and without a torch for CUDA good readings have to be enough."""
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
        return await self._watch(device, process)

    async def _watch(self, device: Device, process: subprocess.Popen[bytes]) -> str | None:
        assert process.stdout is not None
        with process.stdout as out:
            try:
                is_late = not await _ended(process, self._within_s)
            finally:
                # Also where the server ends meanwhile.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if is_late:
                if await _ended(process, 1.0):
                    process.wait()
                else:
                    self._hung[device.id] = process
                return f"no answer within {self._within_s:g} s"
            words = out.read(_WORDS_MAX_BYTES).decode("utf-8", "replace").strip()
        status = process.wait()
        if status in (WORKS, CANNOT_TELL):
            return None
        return words or f"the process that tried it ended with {status}"


async def _ended(process: subprocess.Popen[bytes], within_s: float) -> bool:
    """Whether it has ended by then; its words fit into the pipe, so it waits for nobody."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    loop.add_reader(pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), within_s)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return True

"""Effect: starts child processes, watches them, restarts those that end, and ends all of them."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from runner.coordinator.processes.local_process import LocalProcess, describe_exit
from runner.processes.child import Role

log = logging.getLogger(__name__)


class ChildSlot(Protocol):
    """A place in a pool for one process at a time; after its exit the pool starts another one there."""

    @property
    def role(self) -> Role:
        """The role of the processes in this slot."""

    def start(self) -> LocalProcess:
        """Start a process for this slot.

        Raises:
            OSError: processes, descriptors or memory have run out; the pool tries again.
        """

    def restart_pause_s(self, now_mono: float) -> float:
        """Return the seconds until the next start; called when the process has exited, before `on_exit`."""

    def retry_pause_s(self, now_mono: float) -> float:
        """Return the seconds until the next start, after one that raised OSError."""

    def on_exit(self, process: LocalProcess, status: int) -> None:
        """Release the resources of an exited process; `status` is as `Child.reap` returns it."""


class ChildPool:
    """Child processes of this node, one in each slot.

    A process that exits is replaced after a pause that its slot chooses, until `stop_restarts`. The pool
    detects an exit by the pidfd. A process that survives SIGKILL, as in a driver that hangs, therefore keeps
    its slot and is not replaced.
    """

    def __init__(self) -> None:
        self._processes: dict[ChildSlot, LocalProcess] = {}
        #: Slots whose pause before the next start is not over.
        self._pausing: set[ChildSlot] = set()
        self._all_exited = asyncio.Event()
        self._all_exited.set()
        #: Whether `stop_restarts` was called: no process is started any more.
        self.is_stopping = False
        #: Number of processes that exited before `stop_restarts`.
        self.lost_count = 0

    def start(self, slot: ChildSlot) -> None:
        """Start the process of a slot, unless one runs there, the slot pauses or the pool is stopping.

        Raises:
            OSError: the process can't be started. The pool retries restarts only, not this call.
        """
        if self.is_stopping or slot in self._processes or slot in self._pausing:
            return
        process = slot.start()
        self._processes[slot] = process
        self._all_exited.clear()
        asyncio.get_running_loop().add_reader(process.child.pidfd, self._reap, slot, process)

    def stop_restarts(self) -> None:
        """Start no process from now on, neither in an empty slot nor in place of one that exits."""
        self.is_stopping = True

    def kill_all(self) -> None:
        """Send SIGKILL to every process."""
        for process in self._processes.values():
            process.kill()

    def cut_lifelines(self) -> None:
        """Cut every lifeline, which a process takes as the end of the coordinator."""
        for process in self._processes.values():
            process.child.cut_lifeline()

    async def wait_all_exited(self, timeout_s: float) -> bool:
        """Wait until every process has exited; return False if some still run after `timeout_s`."""
        try:
            await asyncio.wait_for(self._all_exited.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def kill_and_wait(self, timeout_s: float) -> None:
        """Kill every process and wait for the exits; log the processes that still run after `timeout_s`."""
        self.kill_all()
        if not await self.wait_all_exited(timeout_s):
            # They are in an uninterruptible system call, as with a driver that hangs.
            labels = ", ".join(process.label for process in self._processes.values())
            log.error("these processes did not end after SIGKILL: %s", labels)

    def _reap(self, slot: ChildSlot, process: LocalProcess) -> None:
        status = process.child.reap()
        if status is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(process.child.pidfd)
        process.child.close()
        del self._processes[slot]
        if not self.is_stopping:
            self.lost_count += 1
            pause_s = slot.restart_pause_s(loop.time())
            log.error("%s ended: %s; restart in %.1f s", process.label, describe_exit(status), pause_s)
            self._restart_later(slot, pause_s)
        if not self._processes:
            self._all_exited.set()
        slot.on_exit(process, status)

    def _restart_later(self, slot: ChildSlot, pause_s: float) -> None:
        self._pausing.add(slot)
        asyncio.get_running_loop().call_later(pause_s, self._restart, slot)

    def _restart(self, slot: ChildSlot) -> None:
        self._pausing.discard(slot)
        try:
            self.start(slot)
        except OSError as error:
            # Without a retry the slot would stay empty until the coordinator restarts.
            pause_s = slot.retry_pause_s(asyncio.get_running_loop().time())
            log.error("the %s could not be started: %s; retry in %.1f s", slot.role, error, pause_s)
            self._restart_later(slot, pause_s)

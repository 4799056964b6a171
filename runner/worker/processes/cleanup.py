"""Effect: kills all descendants of a dead executor until none is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from runner.processes.orphans import marker_of
from runner.worker.processes import process_tree

#: Interval of sweeps, in seconds.
SWEEP_INTERVAL_S = 0.01
#: Time, in seconds, after which a process that survives SIGKILL is given up.
STUCK_S = 5.0  # guard: stuck-limit
#: Interval of sweeps once a process is given up: a recovered driver may release it.
STUCK_SWEEP_INTERVAL_S = 1.0  # guard: stuck-look


class DescendantCleanup:
    """The descendants of an executor: its group, its session, carriers of its marker, and pids seen below it.

    The worker is the subreaper, so all of them are below the worker and nowhere else. A process below it
    without an owner belongs to this executor if no other executor is alive; otherwise it is spared.
    """

    def __init__(self, leader: int, marker: str, own_pids: Callable[[], set[int]] = set) -> None:
        self._leader, self._marker, self._own_pids = leader, marker, own_pids
        #: pid -> start time of processes seen below the living leader; the only trace of a process that has
        #: left the session, the group and the environment.
        self._seen: dict[int, int] = {}

    def track(self, pids: list[int]) -> None:
        """Record processes as descendants, while their leader is alive."""
        for pid in pids:
            if pid not in self._seen and (process := process_tree.read_process(pid)) is not None:
                self._seen[pid] = process.started_ticks
        if len(self._seen) > 2 * len(pids) + 64:
            self._seen = {pid: born for pid, born in self._seen.items() if os.path.exists(f"/proc/{pid}")}

    def kill_all(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        is_alone: Callable[[], bool],
        on_done: Callable[[bool], None],
    ) -> None:
        """Kill repeatedly until none is left, then call `on_done(True)`.

        After STUCK_S call `on_done(False)`.
        """
        until = loop.time() + STUCK_S

        def sweep_again() -> None:
            if not self.sweep(is_alone=is_alone()):  # guard: swept-until-none
                on_done(True)
            elif loop.time() > until:
                on_done(False)
            else:
                loop.call_later(SWEEP_INTERVAL_S, sweep_again)

        sweep_again()

    def sweep_until_gone(self, loop: asyncio.AbstractEventLoop, on_done: Callable[[], None]) -> None:
        """Continue with processes that survived SIGKILL, until none is left, then call `on_done`."""
        if self.sweep(is_alone=False):
            loop.call_later(STUCK_SWEEP_INTERVAL_S, self.sweep_until_gone, loop, on_done)
        else:
            on_done()

    def sweep(self, *, is_alone: bool) -> int:
        """Kill and reap once; return how many processes are left."""
        processes = process_tree.read_processes()
        descendants = process_tree.descendants_among(os.getpid(), processes)
        own_pids = self._own_pids()
        roots = [
            each for each in descendants if self._is_ours(each) or (is_alone and each.pid not in own_pids)
        ]
        doomed = {process.pid: process for process in roots}
        for process in roots:
            doomed.update(
                (child.pid, child) for child in process_tree.descendants_among(process.pid, processes)
            )
        remaining = 0
        for process in doomed.values():
            if process.state == "Z":
                # Not a child of the worker yet: its parent is killed too, after which it becomes one.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
                remaining += process.parent != os.getpid()
            else:
                process_tree.kill_process(process)  # guard: sweep-kills
                remaining += 1
        return remaining

    def _is_ours(self, process: process_tree.Process) -> bool:
        """Return whether a process below the worker belongs to this executor."""
        return (
            process.group == self._leader
            or process.session == self._leader
            or self._seen.get(process.pid) == process.started_ticks
            or (process.state != "Z" and marker_of(process.pid) == self._marker)
        )


def kill_descendants() -> None:
    """SIGKILL all processes below this one, and reap those that die at once."""
    me = os.getpid()
    for process in process_tree.descendants_among(me, process_tree.read_processes()):
        if process.state != "Z":
            process_tree.kill_process(process)  # guard: clearing-kills
    reap_orphans(set())


def reap_orphans(leaders: set[int]) -> None:
    """Reap ended processes that became children of the worker, except `leaders`, which supervisors reap."""
    for pid in process_tree.child_pids(os.getpid()):
        if pid in leaders:
            continue
        process = process_tree.read_process(pid)
        if process is not None and process.state == "Z":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

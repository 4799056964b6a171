"""Effect: looks at the memory of executors: one over its cap is ended, one over its grant is told of."""

from __future__ import annotations

from runner.jobs.job import EXCEEDED_LIMIT
from runner.worker.processes import cleanup, process_tree
from runner.worker.processes.memory_growth import ram_limit, used_bytes
from runner.worker.supervision.crash_report import EndCause
from runner.worker.supervision.supervisor import Supervisor

SWEEP_S = 0.25
MIB = 1024 * 1024
#: Usage goes up this often, where it has changed by more than this.
TELL_S = 1.0
TELL_BYTES = MIB


class Watchdog:
    """Host memory everywhere; simulated device bytes on a simulated device."""

    def __init__(self, device_kind: str) -> None:
        self._device_kind = device_kind
        #: Executors on a GPU -> their processes, and those that the coordinator knows.
        self._families: dict[int, list[int]] = {}
        self._known: dict[int, list[int]] = {}
        #: Executor -> its bytes, of those that were found over their grant.
        self._over: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._told_mono = 0.0

    def sweep(self, supervisors: list[Supervisor], spared: set[int]) -> None:
        """Look at every executor once; `spared` are processes of the worker's own."""
        living = [each for each in supervisors if each.process is not None and not each.state.is_dead]
        self._families.clear()
        for supervisor in living:
            assert supervisor.process is not None
            pids = process_tree.descendant_pids(supervisor.process.pid)
            supervisor.leftovers.track(pids)
            self._families[supervisor.number] = [supervisor.process.pid, *sorted(pids)]
            self._check_ram(supervisor, [supervisor.process.pid, *pids])
            if self._device_kind == "sim":
                self._check(supervisor, supervisor.state.allocated_bytes, len(supervisor.order.devices))
        leaders = {each.process.pid for each in living if each.process is not None}
        cleanup.reap_orphans(leaders | spared)

    def born(self, supervisor: Supervisor) -> None:
        """An executor was started; its children show at the next look."""
        if supervisor.process is not None:
            self._families[supervisor.number] = [supervisor.process.pid]

    def families(self, *, anew: bool = False) -> list[tuple[int, list[int]]]:
        """(executor, its processes) of those on a GPU where they have changed since this was asked last, or
        (`anew`) of all."""
        if self._device_kind != "nvidia":
            return []
        known, self._known = {} if anew else self._known, dict(self._families)
        return [(number, pids) for number, pids in self._known.items() if known.get(number) != pids]

    def check_grant(self, supervisor: Supervisor) -> None:
        """A simulated device's bytes against what was granted there."""
        used = supervisor.state.allocated_bytes
        supervisor.saw_usage(used)
        self._check(supervisor, used, len(supervisor.order.devices))

    def take_over(self) -> list[tuple[int, int]]:
        """(executor, bytes) of those that were found over their grant since this was asked last."""
        over, self._over = self._over, {}
        return list(over.items())

    def news(self, supervisors: list[Supervisor], now: float) -> list[tuple[int, int]]:
        """(executor, bytes) of all, if it is time and something has changed; else nothing."""
        if self._device_kind == "nvidia" or now - self._told_mono < TELL_S:
            return []
        usage = {each.number: each.state.usage_bytes for each in supervisors if not each.state.is_dead}
        if all(
            abs(used - self._told.get(number, -TELL_BYTES)) < TELL_BYTES for number, used in usage.items()
        ):
            return []
        self._told, self._told_mono = usage, now
        return list(usage.items())

    def _check(self, supervisor: Supervisor, used: int, devices: int) -> None:
        granted = supervisor.order.grant_bytes
        if granted and used // devices > granted:
            self._over[supervisor.number] = used  # guard: over-grant-told

    def _check_ram(self, supervisor: Supervisor, pids: list[int]) -> None:
        cap = supervisor.order.ram_cap_bytes
        used = used_bytes(pids, ram_limit(supervisor.order, self._device_kind))
        if self._device_kind == "cpu":
            supervisor.saw_usage(used)
        if cap is not None and used > cap:
            supervisor.kill(_over_cap(used, cap))
        elif self._device_kind == "cpu":
            self._check(supervisor, used, 1)


def _over_cap(used: int, cap: int) -> EndCause:
    message = f"it used {used // MIB} MiB, over its cap on host memory ({cap // MIB} MiB)"
    return EndCause(
        "memory_exceeded", message, {"used_bytes": used, "limit_bytes": cap, EXCEEDED_LIMIT: "ram"}
    )

"""Effect: looks at the memory of executors and ends the one that is over what it was promised."""

from __future__ import annotations

from runner.worker import leftovers, tree
from runner.worker.growth import ram_limit, used_bytes
from runner.worker.settlement import Cause
from runner.worker.supervisor import Supervisor

SWEEP_S = 0.25
#: Usage goes up this often, where it has changed by more than this.
TELL_S = 1.0
TELL_BYTES = 1024 * 1024


class Watchdog:
    """Host memory everywhere; simulated device bytes on a simulated device."""

    def __init__(self, device_kind: str) -> None:
        self._device_kind = device_kind
        #: Executors on a GPU -> their processes, and those that the coordinator knows.
        self._families: dict[int, list[int]] = {}
        self._known: dict[int, list[int]] = {}
        self._told: dict[int, int] = {}
        self._told_mono = 0.0

    def sweep(self, supervisors: list[Supervisor]) -> None:
        """Look at every executor once."""
        living = [each for each in supervisors if each.process is not None and not each.is_dead]
        self._families.clear()
        for supervisor in living:
            assert supervisor.process is not None
            pids = tree.descendants(supervisor.process.pid)
            supervisor.leftovers.remember(pids)
            self._families[supervisor.number] = [supervisor.process.pid, *sorted(pids)]
            self._check_ram(supervisor, [supervisor.process.pid, *pids])
        leftovers.reap_orphans({each.process.pid for each in living if each.process is not None})

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
        used, granted = supervisor.allocated_bytes, supervisor.order.grant_bytes
        supervisor.saw_usage(used)
        if granted and used > granted:
            supervisor.kill(_over("its grant of device memory", used, granted))

    def news(self, supervisors: list[Supervisor], now: float) -> list[tuple[int, int]]:
        """(executor, bytes) of all, if it is time and something has changed; else nothing."""
        if self._device_kind == "nvidia" or now - self._told_mono < TELL_S:
            return []
        usage = {each.number: each.usage_bytes for each in supervisors if not each.is_dead}
        if all(
            abs(used - self._told.get(number, -TELL_BYTES)) < TELL_BYTES for number, used in usage.items()
        ):
            return []
        self._told, self._told_mono = usage, now
        return list(usage.items())

    def _check_ram(self, supervisor: Supervisor, pids: list[int]) -> None:
        cap = ram_limit(supervisor.order, self._device_kind)
        used = used_bytes(pids, cap)
        if self._device_kind == "cpu":
            supervisor.saw_usage(used)
        if cap is not None and used > cap:
            supervisor.kill(_over("its cap on host memory", used, cap))


def _over(what: str, used: int, limit: int) -> Cause:
    mib = 1024 * 1024
    message = f"it used {used // mib} MiB, over {what} ({limit // mib} MiB)"
    return Cause("memory_exceeded", message, {"used_bytes": used, "limit_bytes": limit})

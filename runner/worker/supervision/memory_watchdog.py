"""Effect: checks the memory of executors: kills those over their cap, reports those over their grant."""

from __future__ import annotations

from runner.jobs.job import EXCEEDED_LIMIT
from runner.worker.processes import cleanup, process_tree
from runner.worker.processes.memory_growth import ram_limit, used_bytes
from runner.worker.supervision.crash_report import EndCause
from runner.worker.supervision.supervisor import Supervisor

#: Interval of the sweeps, in seconds: a shorter peak is not seen.
SWEEP_S = 0.25
MIB = 1024 * 1024
#: Interval of usage reports, in seconds, and the change in bytes below which none is sent.
REPORT_S = 1.0
REPORT_BYTES = MIB


class MemoryWatchdog:
    """Watches host memory on every device, and simulated memory on a simulated one.

    The memory of GPUs is read by the probe; for them the worker only reports which processes an executor has.
    """

    def __init__(self, device_kind: str) -> None:
        self._device_kind = device_kind
        #: By executor on a GPU: its pids, and those last reported to the coordinator.
        self._process_lists: dict[int, list[int]] = {}
        self._reported_lists: dict[int, list[int]] = {}
        #: Executor -> its bytes, for executors found over their grant since the last report.
        self._over_grant: dict[int, int] = {}
        self._reported_usage: dict[int, int] = {}
        self._reported_mono = 0.0

    def sweep(self, supervisors: list[Supervisor], own_pids: set[int]) -> None:
        """Check every executor once; `own_pids` are the worker's own processes."""
        live = [each for each in supervisors if each.process is not None and not each.state.is_dead]
        self._process_lists.clear()
        for supervisor in live:
            assert supervisor.process is not None
            pids = process_tree.descendant_pids(supervisor.process.pid)
            supervisor.cleanup.track(pids)
            self._process_lists[supervisor.number] = [supervisor.process.pid, *sorted(pids)]
            self._check_ram(supervisor, [supervisor.process.pid, *pids])
            if self._device_kind == "sim":
                self._record_if_over(
                    supervisor, supervisor.state.allocated_bytes, len(supervisor.load_command.devices)
                )
        leaders = {each.process.pid for each in live if each.process is not None}
        cleanup.reap_orphans(leaders | own_pids)

    def add_executor(self, supervisor: Supervisor) -> None:
        """Register a started executor; its children are found at the next sweep."""
        if supervisor.process is not None:
            self._process_lists[supervisor.number] = [supervisor.process.pid]

    def process_lists(self, *, include_unchanged: bool = False) -> list[tuple[int, list[int]]]:
        """Return (executor, pids) for executors on a GPU whose processes have changed since the last call.

        With `include_unchanged`, return all executors on a GPU.
        """
        if self._device_kind != "nvidia":
            return []
        reported, self._reported_lists = (
            {} if include_unchanged else self._reported_lists,
            dict(self._process_lists),
        )
        return [
            (number, pids) for number, pids in self._reported_lists.items() if reported.get(number) != pids
        ]

    def check_grant(self, supervisor: Supervisor) -> None:
        """Compare an executor's simulated bytes with its grant."""
        used = supervisor.state.allocated_bytes
        supervisor.on_usage(used)
        self._record_if_over(supervisor, used, len(supervisor.load_command.devices))

    def drain_over_grant(self) -> list[tuple[int, int]]:
        """Return (executor, bytes) of executors found over their grant since the last call."""
        over_grant, self._over_grant = self._over_grant, {}
        return list(over_grant.items())

    def usage_update(self, supervisors: list[Supervisor], now: float) -> list[tuple[int, int]]:
        """Return (executor, bytes) of all executors if a report is due and a value has changed.

        Otherwise nothing.
        """
        if self._device_kind == "nvidia" or now - self._reported_mono < REPORT_S:
            return []
        usage = {each.number: each.state.usage_bytes for each in supervisors if not each.state.is_dead}
        if all(
            abs(used - self._reported_usage.get(number, -REPORT_BYTES)) < REPORT_BYTES
            for number, used in usage.items()
        ):
            return []
        self._reported_usage, self._reported_mono = usage, now
        return list(usage.items())

    def _record_if_over(self, supervisor: Supervisor, used: int, devices: int) -> None:
        """Record an executor that uses more than its grant on each of its devices; no grant is no limit."""
        granted = supervisor.load_command.grant_bytes
        if granted and used // devices > granted:
            self._over_grant[supervisor.number] = used  # guard: over-grant-told

    def _check_ram(self, supervisor: Supervisor, pids: list[int]) -> None:
        """Kill an executor whose processes exceed its cap of host memory; on the cpu device, record usage."""
        cap = supervisor.load_command.ram_cap_bytes
        used = used_bytes(pids, ram_limit(supervisor.load_command, self._device_kind))
        if self._device_kind == "cpu":
            supervisor.on_usage(used)
        if cap is not None and used > cap:
            supervisor.kill(_ram_cap_exceeded(used, cap))
        elif self._device_kind == "cpu":
            self._record_if_over(supervisor, used, 1)


def _ram_cap_exceeded(used: int, cap: int) -> EndCause:
    message = f"used {used // MIB} MiB of host memory, over its cap of {cap // MIB} MiB"
    return EndCause(
        "memory_exceeded", message, {"used_bytes": used, "limit_bytes": cap, EXCEEDED_LIMIT: "ram"}
    )

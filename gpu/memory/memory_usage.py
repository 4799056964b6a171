"""Pure: the memory in use by readings and reports, of our executors and of other programs."""

from __future__ import annotations

from collections.abc import Mapping

from gpu.memory.account import DeviceAccount, LedgerEntry
from gpu.memory.attribution import AttributionLevel


class MemoryUsage:
    """The observed half of the ledger; the granted half is `Ledger`, which shares its accounts with it."""

    def __init__(
        self, accounts: Mapping[str, DeviceAccount], entries: Mapping[int, LedgerEntry], changed: set[str]
    ) -> None:
        self._accounts = accounts
        self._entries = entries
        #: Devices of which a figure may have changed are added here.
        self._changed = changed

    def record_reading(
        self,
        device_id: str,
        total_bytes: int,
        used_bytes: int,
        now: float = 0.0,
        seen: Mapping[int, int] | None = None,
        named_bytes: int | None = None,
    ) -> None:
        """Record a reading of the whole device.

        `now` is in seconds of any clock. `seen` maps executors to their bytes on this device. `named_bytes`
        is the use of all processes that the driver lists; None where it does not report that of each.
        """
        account = self._accounts[device_id]
        self._changed.add(device_id)
        account.unnamed_bytes = (
            account.unnamed_bytes[1],
            None if named_bytes is None else max(0, used_bytes - named_bytes),
        )
        account.used_bytes = used_bytes + max(0, account.device.total_bytes - total_bytes)
        for entry in account.entries.values():
            if entry.state == "draining":
                entry.absent_readings += 1
        self._attribute(account, seen or {})
        account.external_usage.observe(*account.unexplained_bytes(), now)

    def correct_reading(self, device_id: str, seen: Mapping[int, int]) -> None:
        """Attribute the last reading again: some of its processes were only now found to be ours."""
        account = self._accounts[device_id]
        self._changed.add(device_id)
        self._attribute(account, seen)
        account.external_usage.correct(*account.unexplained_bytes())

    def record_total(self, executor: int, nbytes: int) -> None:
        """Record the executor's measured use, the sum over all its devices; each gets an equal share.

        Ignored for an executor without a grant.
        """
        entry = self._entries.get(executor)
        if entry is not None:
            share = nbytes // len(entry.devices)
            self._record(entry, dict.fromkeys(entry.devices, share))

    def record_report(self, executor: int, nbytes: int) -> None:
        """Record what the executor itself reports to use on each of its devices.

        Ignored where the driver lists processes, which is more precise.
        """
        entry = self._entries.get(executor)
        if entry is None or any(account.level == "processes" for account in entry.accounts):
            return
        for account in entry.accounts:
            if account.level == "totals":
                account.level = "reports"
                self._changed.add(account.device.id)
        self._record(entry, dict.fromkeys(entry.devices, nbytes))

    def assume_usage(self, executor: int, nbytes: int) -> None:
        """Assume that the executor holds this much on each of its devices, until it is measured again."""
        entry = self._entries[executor]
        if entry.observed_bytes is not None and nbytes > entry.observed_bytes:
            self._record(entry, dict.fromkeys(entry.devices, nbytes))

    def observed_bytes(self, executor: int) -> int | None:
        """Return the executor's last observed use on each device; None without one."""
        return self._entries[executor].observed_bytes

    def pop_peak(self, executor: int) -> int | None:
        """Return the executor's peak in bytes, on the device where it uses most, since the last call."""
        entry = self._entries[executor]
        peak, entry.peak_bytes = entry.peak_bytes, entry.observed_bytes
        return peak

    def foreign_bytes(self, device_id: str) -> int:
        """Return the most that the readings of the last half minute left unexplained by our executors."""
        return self._accounts[device_id].external_usage.nbytes

    def last_foreign_bytes(self, device_id: str) -> int:
        """Return what the last reading alone left unexplained by our executors."""
        return self._accounts[device_id].external_usage.last_bytes or 0

    def level(self, device_id: str) -> AttributionLevel:
        """Return how precisely the device's use is attributed to processes."""
        return self._accounts[device_id].level

    def _attribute(self, account: DeviceAccount, seen: Mapping[int, int]) -> None:
        for executor, nbytes in seen.items():
            entry = account.entries.get(executor)
            if entry is not None:
                account.level = "processes"
                self._record(entry, {account.device.id: nbytes})

    def _record(self, entry: LedgerEntry, seen: Mapping[str, int]) -> None:
        if entry.record_usage(seen):
            self._changed.update(entry.devices)

"""Pure: the bytes of ended executors, which stay charged until their devices show them free."""

from __future__ import annotations

from collections.abc import Mapping

from gpu.memory.account import DeviceAccount, LedgerEntry

#: A device frees memory 0.5 to 1.5 s after the process ended; beyond this the bytes are suspect.
DRAIN_BOUND_S = 10.0  # guard: drain-bound
#: A reading may have begun before the end that it seems to confirm, so two of them must agree.
READINGS_TO_SETTLE = 2
#: Growth of other programs that does not make a drain look unfinished.
SLACK_BYTES = 64 * 1024 * 1024


class DrainTracker:
    """Settles the entries of executors whose processes have ended; it shares the ledger's accounts."""

    def __init__(
        self, accounts: Mapping[str, DeviceAccount], entries: dict[int, LedgerEntry], changed: set[str]
    ) -> None:
        self._accounts = accounts
        self._entries = entries
        #: Devices of which a figure may have changed are added here.
        self._changed = changed

    def start(self, executor: int, now: float) -> bool:
        """Start draining an executor whose process tree was reaped; True where its bytes are free at once.

        That is so for RAM and simulated devices; else they stay charged until `sweep` finds them free.
        """
        entry = self._entries[executor]
        if all(account.device.kind != "nvidia" for account in entry.accounts):  # guard: gpus-drain
            self.settle(executor)
            return True
        entry.ended_at = now
        entry.absent_readings = 0
        entry.state = "draining"
        self._changed.update(entry.devices)
        for account in entry.accounts:
            account.draining_bytes += entry.charge_bytes
            device_id = account.device.id
            entry.usage_at_end[device_id] = account.external_usage.last_bytes or 0, account.used_bytes or 0
            # The last reading may lie between the end of the process and this call.
            known = [nbytes for nbytes in account.unnamed_bytes if nbytes is not None]
            if known:
                entry.unnamed_at_end[device_id] = min(known)
        return False

    def sweep(self, now: float) -> list[int]:
        """Settle the executors whose bytes the devices now show as free, and return them.

        An executor is settled when two readings after its end did not show it and unexplained use did not
        grow. After 10 s the rest is suspect and stays charged. Where the driver lists processes, other
        programs that took the bytes can be seen: then an executor that is no longer listed is settled all the
        same, and the bytes count as foreign. Use without any listed process may still be its own.
        """
        settled: list[int] = []
        for executor, entry in self._entries.items():
            if entry.state != "draining":
                continue
            entry.is_suspect = now - entry.ended_at >= DRAIN_BOUND_S
            self._changed.update(entry.devices)
            if entry.absent_readings >= READINGS_TO_SETTLE * len(entry.devices) and (
                _is_freed(entry) or (entry.is_suspect and _is_taken_by_others(entry))
            ):
                settled.append(executor)
        for executor in settled:
            self.settle(executor)
        return settled

    def settle(self, executor: int) -> None:
        """Free the executor's bytes and remove its entry. Raises KeyError for an unknown executor."""
        entry = self._entries.pop(executor)
        self._changed.update(entry.devices)
        for account in entry.accounts:
            del account.entries[executor]
            account.charged_bytes -= entry.charge_bytes
            if entry.state == "draining":
                account.draining_bytes -= entry.charge_bytes
                # What the ended process still holds must count as foreign from now on.
                account.external_usage.correct(*account.unexplained_bytes())

    def pending_bytes(self, device_id: str) -> int:
        """Return what ended executors are still charged and will soon free, without suspect ones."""
        account = self._accounts[device_id]
        return account.draining_bytes - account.suspect_bytes if account.draining_bytes else 0


def _is_freed(entry: LedgerEntry) -> bool:
    """Return whether all devices of an ended executor show its bytes free."""
    return all(account.is_freed(entry, SLACK_BYTES) for account in entry.accounts)


def _is_taken_by_others(entry: LedgerEntry) -> bool:
    """Return whether other programs hold what it had, as far as the devices show."""
    for account in entry.accounts:
        unnamed, before = account.unnamed_bytes[1], entry.unnamed_at_end.get(account.device.id)
        if account.level != "processes":
            return False  # guard: taken-if-named
        if unnamed is not None and before is not None and unnamed > before + SLACK_BYTES:
            return False  # guard: taken-if-not-unnamed
    return True

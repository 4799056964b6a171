"""Pure: the bytes that each device has granted, and what is left of it.

    free = total - headroom - foreign - charges

A loading or running executor is charged the larger of its grant and its observed use, an idle one only its
observed use. After its end it stays charged all of that until the device shows the bytes free ("draining").
`foreign` is the part of the device's reading that our executors do not explain; it rises at once and falls
slowly. So bytes that a dead process still holds are never free: they are charged, or they count as foreign.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpu.devices.device import Device
from gpu.memory.account import DeviceAccount, LedgerEntry, MemoryFigures
from gpu.memory.draining import DrainTracker
from gpu.memory.memory_usage import MemoryUsage


class Ledger:
    """The grants of all executors on all devices. Executors are named by their numbers."""

    def __init__(self) -> None:
        self._accounts: dict[str, DeviceAccount] = {}
        self._entries: dict[int, LedgerEntry] = {}
        #: Devices of which a figure may have changed since the caller last emptied this.
        self.changed: set[str] = set()
        #: Executors whose grant was lowered and that have not been sent it; the caller empties it.
        self.lowered_grants: set[int] = set()
        #: The measured use.
        self.usage = MemoryUsage(self._accounts, self._entries, self.changed)
        #: What ended executors have not freed yet.
        self.draining = DrainTracker(self._accounts, self._entries, self.changed)

    @property
    def devices(self) -> list[Device]:
        """The devices in the order in which they were added."""
        return [account.device for account in self._accounts.values()]

    def add_device(self, device: Device) -> None:
        """Open an account for a device.

        Raises:
            ValueError: there is one of that id.
        """
        if device.id in self._accounts:
            raise ValueError(f"device {device.id} is in the ledger already")
        self._accounts[device.id] = DeviceAccount(device)
        self.changed.add(device.id)

    def device(self, device_id: str) -> Device:
        """Return the device of that id. Raises KeyError for an unknown one."""
        return self._accounts[device_id].device

    def reserve(self, device_id: str | Sequence[str], executor: int, nbytes: int) -> bool:
        """Grant bytes to a new executor on each of the devices, or on none; False where they are not free.

        0 bytes are always free.

        Raises:
            ValueError: the executor has an entry already.
        """
        ids = (device_id,) if isinstance(device_id, str) else tuple(device_id)
        if executor in self._entries:
            raise ValueError(f"executor {executor} holds a grant already")
        if nbytes > 0 and any(nbytes > self.free_bytes(each) for each in ids):
            return False
        entry = LedgerEntry(tuple(self._accounts[each] for each in ids), nbytes)
        self._entries[executor] = entry
        self.changed.update(ids)
        for account in entry.accounts:
            account.entries[executor] = entry
            account.charged_bytes += nbytes
        return True

    def mark_running(self, executor: int) -> bool:
        """Charge an executor that resumes or continues work its whole grant again.

        False, with nothing changed, where the bytes that it freed while idle are taken.
        """
        entry = self._entries[executor]
        if entry.state == "idle":
            extra = self.extra_bytes(executor)
            if extra > 0 and any(extra > account.free_bytes for account in entry.accounts):
                return False
        entry.state = "running"
        self._recharge(entry)
        return True

    def mark_idle(self, executor: int) -> None:
        """Charge an idle executor only its observed use."""
        entry = self._entries[executor]
        entry.state = "idle"
        self._recharge(entry)

    def lower_grant(self, executor: int, nbytes: int) -> None:
        """Lower a grant after the true need was measured; `raise_grant` does the opposite."""
        entry = self._entries[executor]
        if nbytes < entry.grant_bytes:
            entry.grant_bytes = nbytes
            self.lowered_grants.add(executor)
            self._recharge(entry)

    def raise_grant(self, executor: int, nbytes: int) -> bool:
        """Raise the grant of a loading or running executor, on each of its devices or on none.

        False, with nothing changed, where the bytes are not free beside all that is in use.
        """
        entry = self._entries[executor]
        extra = max(nbytes, entry.observed_bytes or 0) - entry.charge_bytes
        if any(account.free_bytes < extra for account in entry.accounts):
            return False
        entry.grant_bytes = max(entry.grant_bytes, nbytes)
        self._recharge(entry)
        return True

    def devices_of(self, executor: int) -> tuple[str, ...]:
        """Return the devices on which the executor has a grant; none for an unknown executor."""
        entry = self._entries.get(executor)
        return () if entry is None else entry.devices

    def charge_bytes(self, executor: int) -> int:
        """Return what the executor is charged now, on each of its devices."""
        return self._entries[executor].charge_bytes

    def grant_bytes(self, executor: int) -> int:
        """Return the executor's grant on each device, whether it is charged now or not."""
        return self._entries[executor].grant_bytes

    def extra_bytes(self, executor: int) -> int:
        """Return what an idle executor must be charged in addition on each device to resume work."""
        entry = self._entries[executor]
        return max(0, entry.grant_bytes - entry.charge_bytes)

    def free_bytes(self, device_id: str) -> int:
        """Return what may still be granted; below 0 where other programs took granted bytes."""
        return self._accounts[device_id].free_bytes

    def reserved_bytes(self, device_id: str) -> int:
        """Return what executors that exist are charged."""
        account = self._accounts[device_id]
        return account.charged_bytes - account.draining_bytes

    def neighbour_charges(self, executor: int) -> dict[int, int]:
        """Return the other executors that are charged bytes on its devices, with their charges."""
        charges: dict[int, int] = {}
        for account in self._entries[executor].accounts:
            for other, entry in account.entries.items():
                if other != executor and entry.charge_bytes:
                    charges[other] = entry.charge_bytes
        return charges

    def figures(self, device_id: str) -> MemoryFigures:
        """Return all figures of a device."""
        return self._accounts[device_id].figures()

    def _recharge(self, entry: LedgerEntry) -> None:
        if entry.recharge():
            self.changed.update(entry.devices)

"""Pure: the promises in bytes that each device has given, and what is left of it.

    free = cap - foreign - charges

An executor is charged the larger of its grant and what it was seen to use while it loads or runs,
only what it was seen to use while it idles, and, after its end, all of that until the device shows the
bytes free ("draining"). `foreign` is what the device's reading can't explain by our executors. So
bytes that a dead process still holds are never free: they are charged, or they show as foreign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gpu.device import Device

#: A device gives memory back 0.5 to 1.5 s after the process ended; after this it is suspect.
DRAIN_BOUND_S = 10.0
#: A reading may have begun before the end it seems to confirm; so two of them must agree.
READINGS_TO_SETTLE = 2
#: What other programs may have taken meanwhile without a drain being taken for unfinished.
SLACK_BYTES = 64 * 1024 * 1024

EntryState = Literal["loading", "running", "idle", "draining"]


@dataclass(frozen=True, slots=True)
class Figures:
    """A device's memory, as the API shows it."""

    device: str
    total_bytes: int
    #: By the last reading; where there is none, what our executors were seen to use.
    used_bytes: int
    #: Charged to executors that live.
    reserved_bytes: int
    #: Charged to executors that ended.
    draining_bytes: int
    #: The part of `draining_bytes` that is overdue.
    suspect_bytes: int
    foreign_bytes: int
    #: What may still be promised, at least 0.
    free_bytes: int


class _Entry:
    __slots__ = (
        "charge",
        "devices",
        "ended_at",
        "foreign_at_end",
        "grant",
        "observed",
        "silent",
        "state",
        "suspect",
    )

    def __init__(self, devices: tuple[str, ...], grant: int) -> None:
        self.devices = devices
        #: Bytes on each of the devices.
        self.grant = grant
        self.observed: int | None = None
        self.state: EntryState = "loading"
        self.charge = grant
        self.ended_at = 0.0
        #: Readings since the end that did not show it.
        self.silent = 0
        self.suspect = False
        self.foreign_at_end: dict[str, int] = {}


class _Account:
    __slots__ = ("attributes", "charged", "device", "draining", "entries", "foreign", "total", "used")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.total = device.total_bytes
        self.used: int | None = None
        self.foreign = 0
        #: Sum of all charges, and the part of it that is draining.
        self.charged = 0
        self.draining = 0
        self.entries: dict[int, _Entry] = {}
        #: True once a process of ours was seen in this device's figures.
        self.attributes = False


class Ledger:
    """Who was promised how much of which device. Executors are named by their numbers."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._entries: dict[int, _Entry] = {}
        #: Devices of which a figure may be another than when somebody last emptied this.
        self.changed: set[str] = set()

    @property
    def devices(self) -> list[Device]:
        """In the order in which they were added."""
        return [account.device for account in self._accounts.values()]

    def add_device(self, device: Device) -> None:
        """Start an account.

        Raises:
            ValueError: there is one of that id.
        """
        if device.id in self._accounts:
            raise ValueError(f"device {device.id} is in the ledger already")
        self._accounts[device.id] = _Account(device)
        self.changed.add(device.id)

    def device(self, device_id: str) -> Device:
        """The device of that id. Raises KeyError for an unknown one."""
        return self._accounts[device_id].device

    def reserve(self, device_id: str | Sequence[str], executor: int, nbytes: int) -> bool:
        """Promise bytes to a new executor, on each of the devices or on none; False where they
        are not free. 0 bytes are always free.

        Raises:
            ValueError: the executor has an entry already.
        """
        ids = (device_id,) if isinstance(device_id, str) else tuple(device_id)
        if executor in self._entries:
            raise ValueError(f"executor {executor} holds a grant already")
        if nbytes > 0 and any(nbytes > self.free_bytes(each) for each in ids):
            return False
        entry = self._entries[executor] = _Entry(ids, nbytes)
        self.changed.update(ids)
        for each in ids:
            account = self._accounts[each]
            account.entries[executor] = entry
            account.charged += nbytes
        return True

    def running(self, executor: int) -> bool:
        """The executor takes up (or goes on with) work: its whole grant is charged again. False,
        and nothing changed, where what idling had set free is taken."""
        entry = self._entries[executor]
        if entry.state == "idle":
            extra = self.extra_bytes(executor)
            if extra > 0 and any(extra > self.free_bytes(each) for each in entry.devices):
                return False
        entry.state = "running"
        self._recharge(entry)
        return True

    def idle(self, executor: int) -> None:
        """The executor has nothing to do: only what it was seen to use is charged."""
        entry = self._entries[executor]
        entry.state = "idle"
        self._recharge(entry)

    def use(self, executor: int, nbytes: int) -> None:
        """What the executor was measured to use now, over all its devices together."""
        entry = self._entries.get(executor)
        if entry is None:
            return
        entry.observed = nbytes // len(entry.devices)
        entry.silent = 0
        for each in entry.devices:
            self._accounts[each].attributes = True
        self._recharge(entry)

    def regrant(self, executor: int, nbytes: int) -> None:
        """Lower a promise after the true need was measured; it is never raised."""
        entry = self._entries[executor]
        entry.grant = min(entry.grant, nbytes)
        self._recharge(entry)

    def observe(self, device_id: str, total: int, used: int) -> None:
        """A reading of the whole device. Per-process figures of the same reading go to `use`."""
        account = self._accounts[device_id]
        self.changed.add(device_id)
        account.total, account.used = total, used
        for entry in account.entries.values():
            if entry.state == "draining":
                entry.silent += 1
        account.foreign = self._unexplained(account)

    def drain(self, executor: int, now: float) -> bool:
        """The executor's process tree was reaped. True where its bytes are free at once (RAM and
        simulated devices); else they stay charged until `sweep` finds them free."""
        entry = self._entries[executor]
        if all(self._accounts[each].device.kind != "nvidia" for each in entry.devices):
            self.settled(executor)
            return True
        entry.ended_at = now
        entry.silent = 0
        entry.state = "draining"
        self.changed.update(entry.devices)
        for each in entry.devices:
            account = self._accounts[each]
            account.draining += entry.charge
            entry.foreign_at_end[each] = account.foreign
        return False

    def sweep(self, now: float) -> list[int]:
        """Settle what the devices show free by now; gives those executors.

        Settled is who was missing from two readings after its end while what is left unexplained
        did not grow. After 10 s the rest is suspect: it stays charged, but where the device names
        its processes one that it no longer names is settled all the same, since what it may still
        hold shows as foreign."""
        done: list[int] = []
        for executor, entry in self._entries.items():
            if entry.state != "draining":
                continue
            entry.suspect = now - entry.ended_at >= DRAIN_BOUND_S
            self.changed.update(entry.devices)
            if entry.silent >= READINGS_TO_SETTLE * len(entry.devices) and (
                self._fell(entry) or (entry.suspect and self._attributed(entry))
            ):
                done.append(executor)
        for executor in done:
            self.settled(executor)
        return done

    def settled(self, executor: int) -> None:
        """The executor's bytes are free."""
        entry = self._entries.pop(executor)
        self.changed.update(entry.devices)
        for each in entry.devices:
            account = self._accounts[each]
            del account.entries[executor]
            account.charged -= entry.charge
            if entry.state == "draining":
                account.draining -= entry.charge
                # What the dead one still holds must show as foreign from this moment on.
                account.foreign = self._unexplained(account)

    def charge_bytes(self, executor: int) -> int:
        """What the executor is charged now, on each of its devices."""
        return self._entries[executor].charge

    def grant_bytes(self, executor: int) -> int:
        """What the executor is promised on each device, whether it is charged that now or not."""
        return self._entries[executor].grant

    def extra_bytes(self, executor: int) -> int:
        """What more an idle executor must be given on each device to take up work."""
        entry = self._entries[executor]
        return max(0, entry.grant - entry.charge)

    def observed_bytes(self, executor: int) -> int | None:
        """What the executor was last seen to use on each device; None where it never was."""
        return self._entries[executor].observed

    def free_bytes(self, device_id: str) -> int:
        """What may still be promised; below 0 where others took what was promised."""
        account = self._accounts[device_id]
        return account.device.cap_bytes - account.foreign - account.charged

    def reserved_bytes(self, device_id: str) -> int:
        """What executors that live are charged."""
        account = self._accounts[device_id]
        return account.charged - account.draining

    def draining_bytes(self, device_id: str) -> int:
        """What ended executors are still charged and will soon give back (suspect ones are left out)."""
        account = self._accounts[device_id]
        return account.draining - _suspect_bytes(account) if account.draining else 0

    def foreign_bytes(self, device_id: str) -> int:
        """What the last reading could not explain by our executors."""
        return self._accounts[device_id].foreign

    def figures(self, device_id: str) -> Figures:
        """All figures of a device."""
        account = self._accounts[device_id]
        seen = sum(entry.observed or 0 for entry in account.entries.values())
        return Figures(
            device=device_id,
            total_bytes=account.total,
            used_bytes=seen if account.used is None else account.used,
            reserved_bytes=self.reserved_bytes(device_id),
            draining_bytes=account.draining,
            suspect_bytes=_suspect_bytes(account),
            foreign_bytes=account.foreign,
            free_bytes=max(0, self.free_bytes(device_id)),
        )

    def _recharge(self, entry: _Entry) -> None:
        if entry.state == "idle":
            charge = entry.grant if entry.observed is None else entry.observed
        elif entry.state == "draining":
            charge = max(entry.charge, entry.observed or 0)
        else:
            charge = max(entry.grant, entry.observed or 0)
        delta = charge - entry.charge
        if delta == 0:
            return
        entry.charge = charge
        self.changed.update(entry.devices)
        for each in entry.devices:
            account = self._accounts[each]
            account.charged += delta
            if entry.state == "draining":
                account.draining += delta

    def _unexplained(self, account: _Account, without: _Entry | None = None) -> int:
        """What is used beyond our executors. One that is not named in the figures counts as using
        nothing, so that an error is on the safe side, unless the device names no processes at all
        (containers, WSL): then one that has loaded counts as using its charge."""
        if account.used is None or account.device.kind == "sim":
            return 0
        ours = 0
        for entry in account.entries.values():
            if entry is without:
                continue
            if entry.observed is not None:
                ours += entry.observed
            elif not account.attributes and entry.state != "loading":
                ours += entry.charge
        return max(0, account.used - ours)

    def _fell(self, entry: _Entry) -> bool:
        return all(
            self._unexplained(self._accounts[each], without=entry) <= entry.foreign_at_end[each] + SLACK_BYTES
            for each in entry.devices
        )

    def _attributed(self, entry: _Entry) -> bool:
        return all(self._accounts[each].attributes for each in entry.devices)


def _suspect_bytes(account: _Account) -> int:
    return sum(entry.charge for entry in account.entries.values() if entry.suspect)

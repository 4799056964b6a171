"""Pure: the promises in bytes that each device has given, and what is left of it.

    free = total - headroom - foreign - charges

An executor is charged the larger of its grant and what it was seen to use while it loads or runs,
only what it was seen to use while it idles, and, after its end, all of that until the device shows the
bytes free ("draining"). `foreign` is what the device's reading can't explain by our executors, fast up
and slow down. So bytes that a dead process still holds are never free: they are charged, or they show
as foreign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu.account import Account, Entry, Figures
from gpu.attribution import Level
from gpu.device import Device

#: A device gives memory back 0.5 to 1.5 s after the process ended; after this it is suspect.
DRAIN_BOUND_S = 10.0  # guard: drain-bound
#: A reading may have begun before the end it seems to confirm; so two of them must agree.
READINGS_TO_SETTLE = 2
#: What other programs may have taken meanwhile without a drain being taken for unfinished.
SLACK_BYTES = 64 * 1024 * 1024


class Ledger:
    """Who was promised how much of which device. Executors are named by their numbers."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._entries: dict[int, Entry] = {}
        #: Devices of which a figure may be another than when somebody last emptied this.
        self.changed: set[str] = set()
        #: Executors whose promise was lowered, until they are told: the caller empties it.
        self.regranted: set[int] = set()

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
        self._accounts[device.id] = Account(device)
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
        entry = self._entries[executor] = Entry(ids, nbytes)
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
        if entry is not None:
            share = nbytes // len(entry.devices)
            self._see(entry, dict.fromkeys(entry.devices, share))

    def report(self, executor: int, nbytes: int) -> None:
        """What the executor itself says that it uses on each of its devices. Where the driver names
        processes, it knows better."""
        entry = self._entries.get(executor)
        if entry is None:
            return
        accounts = [self._accounts[each] for each in entry.devices]
        if any(account.level == "processes" for account in accounts):
            return
        for account in accounts:
            if account.level == "totals":
                account.level = "reports"
                self.changed.add(account.device.id)
        self._see(entry, dict.fromkeys(entry.devices, nbytes))

    def suppose(self, executor: int, nbytes: int) -> None:
        """Until it is looked at again it may hold so much of each of its devices."""
        entry = self._entries[executor]
        if entry.observed is not None and nbytes > entry.observed:
            self._see(entry, dict.fromkeys(entry.devices, nbytes))

    def regrant(self, executor: int, nbytes: int) -> None:
        """Lower a promise after the true need was measured; see `raise_grant` for the other way."""
        entry = self._entries[executor]
        if nbytes < entry.grant:
            entry.grant = nbytes
            self.regranted.add(executor)
            self._recharge(entry)

    def raise_grant(self, executor: int, nbytes: int) -> bool:
        """Promise more to an executor that loads or runs, on each of its devices or on none; False, and
        nothing changed, where it is not free beside all that is in use."""
        entry = self._entries[executor]
        extra = max(nbytes, entry.observed or 0) - entry.charge
        if any(self.free_bytes(each) < extra for each in entry.devices):
            return False
        entry.grant = max(entry.grant, nbytes)
        self._recharge(entry)
        return True

    def observe(
        self,
        device_id: str,
        total: int,
        used: int,
        now: float = 0.0,
        seen: Mapping[int, int] | None = None,
        named: int | None = None,
    ) -> None:
        """A reading of the whole device, with what executors were `seen` to use of it, and what all processes
        that the driver lists use together."""
        account = self._accounts[device_id]
        self.changed.add(device_id)
        account.unnamed = account.unnamed[1], None if named is None else max(0, used - named)
        account.used = used + max(0, account.device.total_bytes - total)
        for entry in account.entries.values():
            if entry.state == "draining":
                entry.silent += 1
        for executor, nbytes in (seen or {}).items():
            found = account.entries.get(executor)
            if found is not None:
                account.level = "processes"
                self._see(found, {device_id: nbytes})
        account.foreign.see(*account.unexplained(), now)

    def correct(self, device_id: str, seen: Mapping[int, int]) -> None:
        """It was learned late which of the last reading's processes are ours."""
        account = self._accounts[device_id]
        self.changed.add(device_id)
        for executor, nbytes in seen.items():
            found = account.entries.get(executor)
            if found is not None:
                account.level = "processes"
                self._see(found, {device_id: nbytes})
        account.foreign.correct(*account.unexplained())

    def drain(self, executor: int, now: float) -> bool:
        """The executor's process tree was reaped. True where its bytes are free at once (RAM and
        simulated devices); else they stay charged until `sweep` finds them free."""
        entry = self._entries[executor]
        if all(self._accounts[each].device.kind != "nvidia" for each in entry.devices):  # guard: gpus-drain
            self.settled(executor)
            return True
        entry.ended_at = now
        entry.silent = 0
        entry.state = "draining"
        self.changed.update(entry.devices)
        for each in entry.devices:
            account = self._accounts[each]
            account.draining += entry.charge
            entry.at_end[each] = account.foreign.last_bytes or 0, account.used or 0
            # The last reading may have been made between its death and this word of it.
            known = [nbytes for nbytes in account.unnamed if nbytes is not None]
            if known:
                entry.unnamed_at_end[each] = min(known)
        return False

    def sweep(self, now: float) -> list[int]:
        """Settle what the devices show free by now; gives those executors.

        Settled is who was missing from two readings after its end while what is left unexplained
        did not grow. After 10 s the rest is suspect and stays charged. Where the device names its processes
        it can be told who else has taken the bytes: then one that is no longer named is settled all the
        same, and they show as foreign. What no process is named for it may still hold."""
        done: list[int] = []
        for executor, entry in self._entries.items():
            if entry.state != "draining":
                continue
            entry.suspect = now - entry.ended_at >= DRAIN_BOUND_S
            self.changed.update(entry.devices)
            if entry.silent >= READINGS_TO_SETTLE * len(entry.devices) and (
                self._is_back(entry) or (entry.suspect and self._is_taken(entry))
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
                account.foreign.correct(*account.unexplained())

    def devices_of(self, executor: int) -> tuple[str, ...]:
        """Where the executor has a promise; nothing for one that is unknown."""
        entry = self._entries.get(executor)
        return () if entry is None else entry.devices

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

    def take_peak(self, executor: int) -> int | None:
        """The most that it was seen to use on a device since this was asked last."""
        entry = self._entries[executor]
        peak, entry.peak = entry.peak, entry.observed
        return peak

    def free_bytes(self, device_id: str) -> int:
        """What may still be promised; below 0 where others took what was promised."""
        account = self._accounts[device_id]
        return (
            account.device.cap_bytes
            - account.foreign.nbytes  # guard: foreign-bytes
            - account.charged
        )

    def reserved_bytes(self, device_id: str) -> int:
        """What executors that live are charged."""
        account = self._accounts[device_id]
        return account.charged - account.draining

    def draining_bytes(self, device_id: str) -> int:
        """What ended executors are still charged and will soon give back (suspect ones are left out)."""
        account = self._accounts[device_id]
        return account.draining - account.suspect_bytes if account.draining else 0

    def foreign_bytes(self, device_id: str) -> int:
        """What readings of the last half minute could not explain by our executors, at most."""
        return self._accounts[device_id].foreign.nbytes

    def others_bytes(self, device_id: str) -> int:
        """What the last reading alone could not explain by our executors."""
        return self._accounts[device_id].foreign.last_bytes or 0

    def level(self, device_id: str) -> Level:
        """How much is known of who uses what there."""
        return self._accounts[device_id].level

    def neighbours(self, executor: int) -> dict[int, int]:
        """Who else is charged bytes on its devices, and how many."""
        found: dict[int, int] = {}
        for each in self._entries[executor].devices:
            for other, entry in self._accounts[each].entries.items():
                if other != executor and entry.charge:
                    found[other] = entry.charge
        return found

    def figures(self, device_id: str) -> Figures:
        """All figures of a device."""
        account = self._accounts[device_id]
        seen = sum(entry.seen.get(device_id, 0) for entry in account.entries.values())
        free = self.free_bytes(device_id)
        return Figures(
            device=device_id,
            total_bytes=account.device.total_bytes,
            used_bytes=seen if account.used is None else account.used,
            reserved_bytes=self.reserved_bytes(device_id),
            draining_bytes=account.draining,
            suspect_bytes=account.suspect_bytes,
            foreign_bytes=account.foreign.nbytes,
            free_bytes=max(0, free),
            short_bytes=max(0, -free),
            headroom_bytes=account.device.headroom_bytes,
            level=account.level,
        )

    def _see(self, entry: Entry, seen: Mapping[str, int]) -> None:
        entry.seen.update(seen)
        entry.observed = max(entry.seen.values())
        entry.peak = max(entry.peak or 0, entry.observed)
        entry.silent = 0
        self._recharge(entry)

    def _recharge(self, entry: Entry) -> None:
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

    def _is_back(self, entry: Entry) -> bool:
        return all(self._accounts[each].is_back(entry, SLACK_BYTES) for each in entry.devices)

    def _is_taken(self, entry: Entry) -> bool:
        """Whether others have what it had, as far as the devices tell."""
        for each in entry.devices:
            account = self._accounts[each]
            unnamed, before = account.unnamed[1], entry.unnamed_at_end.get(each)
            if account.level != "processes":
                return False  # guard: taken-if-named
            if unnamed is not None and before is not None and unnamed > before + SLACK_BYTES:
                return False  # guard: taken-if-not-unnamed
        return True

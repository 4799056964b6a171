"""Pure: what is known of one device and of those who were promised some of it; the ledger keeps these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gpu.devices.device import Device
from gpu.memory.attribution import Level
from gpu.memory.external_usage import WINDOW_S, Foreign

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
    #: The most that others were seen to use in the last half minute.
    foreign_bytes: int
    #: What may still be promised, at least 0.
    free_bytes: int
    #: What others took of what was promised, at least 0. The total is headroom, foreign, reserved, draining
    #: and free bytes together, less these.
    short_bytes: int
    #: Never promised.
    headroom_bytes: int
    #: How much is known of who uses what.
    level: Level


class Entry:
    """A promise to one executor, and what is known of what it uses."""

    __slots__ = (
        "accounts",
        "at_end",
        "charge",
        "devices",
        "ended_at",
        "grant",
        "observed",
        "peak",
        "seen",
        "silent",
        "state",
        "suspect",
        "unnamed_at_end",
    )

    def __init__(self, accounts: tuple[Account, ...], grant: int) -> None:
        #: Of the devices on which it has the promise, and their ids.
        self.accounts = accounts
        self.devices = tuple(account.device.id for account in accounts)
        #: Bytes on each of the devices.
        self.grant = grant
        #: What it was last seen to use: on each device, and on the one where it uses most.
        self.seen: dict[str, int] = {}
        self.observed: int | None = None
        #: The most that was seen since somebody asked.
        self.peak: int | None = None
        self.state: EntryState = "loading"
        self.charge = grant
        self.ended_at = 0.0
        #: Readings since the end that did not show it.
        self.silent = 0
        self.suspect = False
        #: Of each device when it ended: what others had, and what was used in all.
        self.at_end: dict[str, tuple[int, int]] = {}
        #: Of devices whose driver told then what each process uses, see `Account.unnamed`.
        self.unnamed_at_end: dict[str, int] = {}

    def see(self, seen: Mapping[str, int]) -> bool:
        """Take what it was seen to use on some of its devices; True where that changes its charge."""
        self.seen.update(seen)
        self.observed = max(self.seen.values())
        self.peak = max(self.peak or 0, self.observed)
        self.silent = 0
        return self.recharge()

    def recharge(self) -> bool:
        """Charge what its state, its grant and its use call for; False where that is charged already."""
        if self.state == "idle":
            charge = self.grant if self.observed is None else self.observed
        elif self.state == "draining":
            charge = max(self.charge, self.observed or 0)
        else:
            charge = max(self.grant, self.observed or 0)
        delta = charge - self.charge
        if delta == 0:
            return False
        self.charge = charge
        for account in self.accounts:
            account.charged += delta
            if self.state == "draining":
                account.draining += delta
        return True


class Account:
    """One device, and who has a promise there."""

    __slots__ = ("charged", "device", "draining", "entries", "foreign", "level", "unnamed", "used")

    def __init__(self, device: Device) -> None:
        self.device = device
        #: By the last reading; what the driver has taken from the total since the start counts as used.
        self.used: int | None = None
        #: By the last two readings, what is used beyond all processes that the driver lists; None where it
        #: does not tell what each of them uses.
        self.unnamed: tuple[int | None, int | None] = None, None
        # RAM is given back at once, and what other programs have of it goes up and down all the time.
        self.foreign = Foreign(WINDOW_S if device.kind == "nvidia" else 0.0)
        #: Sum of all charges, and the part of it that is draining.
        self.charged = 0
        self.draining = 0
        self.entries: dict[int, Entry] = {}
        self.level: Level = "totals" if device.kind == "nvidia" else "exact"

    def unexplained(self, without: Entry | None = None) -> tuple[int, int]:
        """What is used beyond our executors: at least and at most."""
        if self.used is None or self.device.kind == "sim":
            return 0, 0
        least = most = self.used
        for entry in self.entries.values():
            if entry is not without:
                own = self._own(entry)
                least -= own[1]
                most -= own[0]
        return max(0, least), max(0, most)

    def is_back(self, entry: Entry, slack: int) -> bool:
        """Whether the last reading shows what an ended executor had to be free: nothing is left that might be
        its, or, where neighbours at work may have grown, the total fell by what it was known to have."""
        foreign, used = entry.at_end[self.device.id]
        if self.unexplained(without=entry)[1] <= foreign + slack:
            return True
        seen = entry.seen.get(self.device.id)
        if self.level == "processes" or seen is None or self.used is None:
            return False
        return self.used <= used - seen + slack

    @property
    def free_bytes(self) -> int:
        """What may still be promised; below 0 where others took what was promised."""
        return (
            self.device.cap_bytes
            - self.foreign.nbytes  # guard: foreign-bytes
            - self.charged
        )

    @property
    def suspect_bytes(self) -> int:
        """Charged to executors that ended too long ago."""
        return sum(entry.charge for entry in self.entries.values() if entry.suspect)

    def figures(self) -> Figures:
        """All figures of the device."""
        seen = sum(entry.seen.get(self.device.id, 0) for entry in self.entries.values())
        free = self.free_bytes
        return Figures(
            device=self.device.id,
            total_bytes=self.device.total_bytes,
            used_bytes=seen if self.used is None else self.used,
            reserved_bytes=self.charged - self.draining,
            draining_bytes=self.draining,
            suspect_bytes=self.suspect_bytes,
            foreign_bytes=self.foreign.nbytes,
            free_bytes=max(0, free),
            short_bytes=max(0, -free),
            headroom_bytes=self.device.headroom_bytes,
            level=self.level,
        )

    def _own(self, entry: Entry) -> tuple[int, int]:
        """What an executor uses of the device, at least and at most. Where the driver names processes, one
        that it does not name counts as using nothing, so that an error is on the safe side; elsewhere one at
        work may use all of its grant, and so may one of which nothing is known."""
        seen = entry.seen.get(self.device.id)
        if self.level in ("exact", "processes"):
            return seen or 0, seen or 0
        if seen is None or entry.state in ("loading", "running"):
            return seen or 0, entry.charge
        return seen, seen

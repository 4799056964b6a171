"""Pure: the account of one device and the grants of executors on it; kept by the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gpu.devices.device import Device
from gpu.memory.attribution import AttributionLevel
from gpu.memory.external_usage import WINDOW_S, ExternalUsage

LedgerEntryState = Literal["loading", "running", "idle", "draining"]


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """A device's memory, as the API shows it."""

    device: str
    total_bytes: int
    #: By the last reading; without one, the observed use of our executors.
    used_bytes: int
    #: Charged to executors that exist.
    reserved_bytes: int
    #: Charged to executors that ended.
    draining_bytes: int
    #: The part of `draining_bytes` that is overdue.
    suspect_bytes: int
    #: The most that other programs were seen to use in the last half minute.
    foreign_bytes: int
    #: What may still be granted, at least 0.
    free_bytes: int
    #: Granted bytes that other programs took, at least 0. The total is headroom, foreign, reserved, draining
    #: and free bytes together, less these.
    short_bytes: int
    #: Never granted.
    headroom_bytes: int
    #: How precisely use is attributed.
    level: AttributionLevel


class LedgerEntry:
    """The grant of one executor, and its observed use."""

    __slots__ = (
        "absent_readings",
        "accounts",
        "charge_bytes",
        "devices",
        "ended_at",
        "grant_bytes",
        "is_suspect",
        "observed_bytes",
        "peak_bytes",
        "seen_bytes",
        "state",
        "unnamed_at_end",
        "usage_at_end",
    )

    def __init__(self, accounts: tuple[DeviceAccount, ...], grant_bytes: int) -> None:
        #: The accounts and ids of its devices.
        self.accounts = accounts
        self.devices = tuple(account.device.id for account in accounts)
        #: Bytes on each of the devices.
        self.grant_bytes = grant_bytes
        #: Last observed use: on each device, and on the device where it uses most.
        self.seen_bytes: dict[str, int] = {}
        self.observed_bytes: int | None = None
        #: The highest observed use since the peak was last taken.
        self.peak_bytes: int | None = None
        self.state: LedgerEntryState = "loading"
        self.charge_bytes = grant_bytes
        self.ended_at = 0.0
        #: Readings since its end that did not show it.
        self.absent_readings = 0
        self.is_suspect = False
        #: Use of each device when it ended: by other programs, and in total.
        self.usage_at_end: dict[str, tuple[int, int]] = {}
        #: Use outside all listed processes when it ended, of devices whose driver lists each process's use;
        #: see `DeviceAccount.unnamed_bytes`.
        self.unnamed_at_end: dict[str, int] = {}

    def record_usage(self, seen: Mapping[str, int]) -> bool:
        """Record its observed use on some of its devices; True where its charge changes."""
        self.seen_bytes.update(seen)
        self.observed_bytes = max(self.seen_bytes.values())
        self.peak_bytes = max(self.peak_bytes or 0, self.observed_bytes)
        self.absent_readings = 0
        return self.recharge()

    def recharge(self) -> bool:
        """Update the charge after its state, grant or use changed; False where it is the same."""
        if self.state == "idle":
            charge = self.grant_bytes if self.observed_bytes is None else self.observed_bytes
        elif self.state == "draining":
            charge = max(self.charge_bytes, self.observed_bytes or 0)
        else:
            charge = max(self.grant_bytes, self.observed_bytes or 0)
        delta = charge - self.charge_bytes
        if delta == 0:
            return False
        self.charge_bytes = charge
        for account in self.accounts:
            account.charged_bytes += delta
            if self.state == "draining":
                account.draining_bytes += delta
        return True


class DeviceAccount:
    """One device, and the executors with a grant on it."""

    __slots__ = (
        "charged_bytes",
        "device",
        "draining_bytes",
        "entries",
        "external_usage",
        "level",
        "unnamed_bytes",
        "used_bytes",
    )

    def __init__(self, device: Device) -> None:
        self.device = device
        #: By the last reading; memory that the driver took from the total since the start counts as used.
        self.used_bytes: int | None = None
        #: By the last two readings, the use beyond all processes that the driver lists; None where it does
        #: not report each one's use.
        self.unnamed_bytes: tuple[int | None, int | None] = None, None
        # RAM is returned at once, and the use of other programs fluctuates all the time.
        self.external_usage = ExternalUsage(WINDOW_S if device.kind == "nvidia" else 0.0)
        #: Sum of all charges, and the part of it that is draining.
        self.charged_bytes = 0
        self.draining_bytes = 0
        self.entries: dict[int, LedgerEntry] = {}
        self.level: AttributionLevel = "totals" if device.kind == "nvidia" else "exact"

    def unexplained_bytes(self, without: LedgerEntry | None = None) -> tuple[int, int]:
        """Return the minimum and the maximum of what is used beyond our executors."""
        if self.used_bytes is None or self.device.kind == "sim":
            return 0, 0
        least = most = self.used_bytes
        for entry in self.entries.values():
            if entry is not without:
                own = self._own_bytes(entry)
                least -= own[1]
                most -= own[0]
        return max(0, least), max(0, most)

    def is_freed(self, entry: LedgerEntry, slack_bytes: int) -> bool:
        """Return whether the last reading shows an ended executor's memory as free.

        Either nothing remains that might be its, or, where running neighbours may have grown, the total fell
        by its known use.
        """
        foreign, used = entry.usage_at_end[self.device.id]
        if self.unexplained_bytes(without=entry)[1] <= foreign + slack_bytes:
            return True
        seen = entry.seen_bytes.get(self.device.id)
        if self.level == "processes" or seen is None or self.used_bytes is None:
            return False
        return self.used_bytes <= used - seen + slack_bytes

    @property
    def free_bytes(self) -> int:
        """What may still be granted; below 0 where other programs took granted bytes."""
        return (
            self.device.cap_bytes
            - self.external_usage.nbytes  # guard: foreign-bytes
            - self.charged_bytes
        )

    @property
    def suspect_bytes(self) -> int:
        """Charged to executors that ended too long ago."""
        return sum(entry.charge_bytes for entry in self.entries.values() if entry.is_suspect)

    def figures(self) -> MemoryFigures:
        """Return all figures of the device."""
        seen = sum(entry.seen_bytes.get(self.device.id, 0) for entry in self.entries.values())
        free_bytes = self.free_bytes
        return MemoryFigures(
            device=self.device.id,
            total_bytes=self.device.total_bytes,
            used_bytes=seen if self.used_bytes is None else self.used_bytes,
            reserved_bytes=self.charged_bytes - self.draining_bytes,
            draining_bytes=self.draining_bytes,
            suspect_bytes=self.suspect_bytes,
            foreign_bytes=self.external_usage.nbytes,
            free_bytes=max(0, free_bytes),
            short_bytes=max(0, -free_bytes),
            headroom_bytes=self.device.headroom_bytes,
            level=self.level,
        )

    def _own_bytes(self, entry: LedgerEntry) -> tuple[int, int]:
        """Return the minimum and the maximum of an executor's use of the device.

        Where the driver lists processes, an executor without a listed one counts as using nothing, so that an
        error is on the safe side. Elsewhere a busy executor may use its whole grant, and so may one without
        observed use.
        """
        seen = entry.seen_bytes.get(self.device.id)
        if self.level in ("exact", "processes"):
            return seen or 0, seen or 0
        if seen is None or entry.state in ("loading", "running"):
            return seen or 0, entry.charge_bytes
        return seen, seen

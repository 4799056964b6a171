"""Pure: all that a plan looks at, kept as an index by events: what waits, what is loaded, what is left.

The coordinator calls these methods as things happen. Nothing here is ever rebuilt, and no method costs more
for a longer line. Executors and jobs are numbers, devices their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpu.bypass import Bypass, is_harmed
from gpu.device import Device
from gpu.estimate import Peaks
from gpu.expiry import Expiry
from gpu.floor import Floor
from gpu.ledger import Ledger
from gpu.line import JobClass, Key, Line
from gpu.resident import Resident, Slot

STAGE_MAX = 16
#: Of a device's bytes one part in so many must be free for a job whose need is unknown.
UNKNOWN_PARTS = 4


class View:
    """The index. `plan(view, now)` reads it; the coordinator carries its actions out, in their order, by
    calling `start`, `load` and `evict` before anything else happens."""

    def __init__(
        self, devices: Iterable[Device] = (), *, peaks: Peaks | None = None, bypass_limit: int = 8
    ) -> None:
        self.ledger = Ledger()
        self.peaks = Peaks() if peaks is None else peaks
        self.bypass = Bypass(bypass_limit)
        self.floor = Floor()
        #: The floor's own table.
        self.executors = self.floor.executors
        #: Only lines in which somebody waits.
        self.lines: dict[JobClass, Line] = {}
        self.paused: set[str] = set()
        self.limits: dict[str, int] = {}
        self.depths: dict[tuple[str, str], int] = {}
        #: How many classes of a key have somebody waiting.
        self.wanted: dict[Key, int] = {}
        self._expiry = Expiry(self.executors, self.wanted, self.floor.is_kept)
        for device in devices:
            self.add_device(device)

    # Settings and devices.

    def add_device(self, device: Device, *, is_open: bool = True) -> None:
        """A device was found. Raises ValueError where its id is known."""
        self.ledger.add_device(device)
        self.floor.add_device(device, is_open=is_open)

    def set_device_open(self, device_id: str, is_open: bool, closed_for: str = "") -> None:
        """Whether the device takes new work (its worker is up, and nobody drains it), and if not, why."""
        slot = self.floor.slots[device_id]
        slot.is_open, slot.closed_for = is_open, "" if is_open else closed_for
        if not is_open:
            self.bypass.release(device_id)

    def set_max_executors(self, device_id: str, count: int) -> None:
        """How many executors load or run there at once."""
        self.floor.slots[device_id].max_executors = count

    def pause_queue(self, name: str, paused: bool) -> None:
        """Jobs of a paused queue wait; those that started go on."""
        (self.paused.add if paused else self.paused.discard)(name)

    def set_limit(self, handler: str, limit: int | None) -> None:
        """How many attempts of a handler run at once, everywhere (staged ones do not run)."""
        if limit is None:
            self.limits.pop(handler, None)
        else:
            self.limits[handler] = limit

    def set_stage(self, handler: str, version: str, depth: int) -> None:
        """How many attempts an executor of it may hold at once: 1 to 16."""
        self.depths[handler, version] = min(max(depth, 1), STAGE_MAX)

    # Jobs that wait.

    def add_waiting(self, cls: JobClass, n: int, *, first: bool = False) -> None:
        """A job is ready to start; `first` puts it before the others of its class."""
        line = self.lines.get(cls)
        if line is None:
            line = self.lines[cls] = Line()
            self.wanted[cls.key] = self.wanted.get(cls.key, 0) + 1
        line.add(n, first=first)

    def remove_waiting(self, cls: JobClass, n: int) -> bool:
        """The job no longer waits; False where it did not."""
        line = self.lines.get(cls)
        if line is None or n not in line:
            return False
        self._take(cls, (n,))
        return True

    def waiting_count(self, cls: JobClass) -> int:
        """How many of a class wait."""
        line = self.lines.get(cls)
        return 0 if line is None else len(line)

    def classes(self) -> list[JobClass]:
        """Those in which somebody waits."""
        return list(self.lines)

    # What a plan's actions do.

    def start(self, executor: int, cls: JobClass, ns: Sequence[int]) -> None:
        """Waiting jobs are handed to a warm executor.

        Raises:
            ValueError: it does not take work, or its bytes were given away: not what the plan said.
        """
        resident = self.executors[executor]
        if resident.state == "idle":
            if not self.ledger.running(executor):
                raise ValueError(f"executor {executor} can't start: its bytes are promised to others")
            self.floor.wake(resident)
            if cls.alone:
                self.floor.own(resident)
        elif resident.state != "running" and not self.floor.claim(resident):
            raise ValueError(f"executor {executor} is {resident.state} and takes no work")
        self._take(cls, ns)
        for n in ns:
            resident.assigned[n] = cls
        self._count_overtaken(cls, ns, resident)

    def load(
        self,
        executor: int,
        cls: JobClass,
        n: int,
        device_ids: Sequence[str],
        grant_bytes: int,
        exclusive: bool = False,
        *,
        keep_alive_s: float = 300.0,
        max_jobs: int | None = None,
    ) -> None:
        """A new executor starts, with one waiting job, or, for a wish, without any.

        Raises:
            ValueError: its bytes are not free: not what the plan said.
        """
        if not self.ledger.reserve(device_ids, executor, grant_bytes):
            raise ValueError(f"executor {executor} can't load: {grant_bytes} bytes not free on {device_ids}")
        resident = Resident(
            executor, cls.key, tuple(device_ids), grant_bytes, keep_alive_s, max_jobs, exclusive
        )
        self.floor.enter(resident, early=cls.is_wish)
        if cls.alone:
            self.floor.own(resident)
        self._take(cls, (n,))
        if not cls.is_wish:
            resident.assigned[n] = cls
        self._count_overtaken(cls, (n,), resident)

    def evict(self, executor: int, *, lingers: bool = False) -> None:
        """An executor is told to go and gets no more work; one that `lingers` ends what it runs first."""
        self.floor.leave(self.executors[executor], lingers=lingers)

    # What executors do.

    def loaded(self, executor: int, resident_bytes: int | None, now: float) -> None:
        """It is ready; `resident_bytes` is what it was seen to use then, if anybody looked."""
        resident = self.executors[executor]
        if resident_bytes is not None:
            self.ledger.use(executor, resident_bytes)
        if resident.state != "loading":
            return
        resident.state = "running"
        self.ledger.running(executor)
        if not resident.assigned:
            self._rest(resident, now)

    def takes_long(self, executor: int, n: int) -> None:
        """The attempt that it runs is not a short one: until its end nothing is staged behind it."""
        self.executors[executor].long_n = n

    def ended(self, executor: int, cls: JobClass, n: int, now: float, *, done: bool = True) -> bool:
        """One attempt of it ended; without any other it idles. False where it was not handed that one.
        `done=False` where it gave the attempt back unstarted: that does not wear it."""
        resident = self.executors.get(executor)
        if resident is None or resident.assigned.pop(n, None) is None:
            return False
        if resident.long_n == n:
            resident.long_n = None
        resident.jobs_done += done
        if not resident.assigned and resident.busy and resident.state != "loading":
            self._rest(resident, now)
        return True

    def gone(self, executor: int, now: float | None) -> list[tuple[int, JobClass]]:
        """Its process tree was reaped; gives what it was handed and nobody ended. Its bytes drain, but
        where `now` is None: it was written off, not reaped, and keeps them until the ledger drains it."""
        resident = self.executors[executor]
        self.floor.remove(resident)
        if now is not None:
            self.ledger.drain(executor, now)
        return list(resident.assigned.items())

    def learn(self, handler: str, model: str, peak_bytes: int) -> None:
        """A peak was measured. Who was granted all there was keeps what is needed; others may start."""
        if not self.peaks.learn(handler, model, peak_bytes):
            return
        need = self.peaks.peak(handler, model) or 0
        for key, residents in self.floor.by_key.items():
            if (key[0], key[2]) == (handler, model):
                for resident in residents.values():
                    if resident.exclusive:
                        self.floor.share(resident)
                        self.ledger.regrant(resident.executor, need)

    def out_of_memory(self, handler: str, model: str) -> None:
        """What was learned was too little: the next attempt gets a device for itself again."""
        self.peaks.forget(handler, model)

    def sweep(self, now: float) -> list[int]:
        """Executors that ended and whose bytes the devices now show free."""
        return self.ledger.sweep(now)

    def expired_idle(self, now: float) -> list[int]:
        """Executors to unload now: idle for longer than they are kept while nobody waits for them, or
        worn out. Each is named once: the caller evicts it."""
        return self._expiry.due(now)

    def next_expiry(self) -> float | None:
        """When to ask `expired_idle` again; it may prove to be early."""
        return self._expiry.next()

    # What a class needs, and where.

    def need_bytes(self, cls: JobClass) -> int | None:
        """What an executor of the class must be granted: declared, else learned, else None. What was
        learned on a larger device than there is now counts as unknown."""
        if cls.need_bytes is not None:
            return cls.need_bytes
        largest = max((slot.device.cap_bytes for slot in self.floor.lane(cls)), default=0)
        known = self.peaks.peak(cls.handler, cls.model, largest)
        return known if known is not None and known <= largest else None

    def need_on(self, cls: JobClass, slot: Slot) -> int:
        """The bytes that must be free on a device to load the class there: unknown, a quarter."""
        need, cap = self.need_bytes(cls), slot.device.cap_bytes
        if need is None:
            return max(1, cap // UNKNOWN_PARTS)
        return need if cls.need_bytes is not None else self.peaks.peak(cls.handler, cls.model, cap) or need

    def suits(self, resident: Resident, cls: JobClass) -> bool:
        """Whether an executor of the class's key was granted enough for it, where it may run."""
        if (cls.avoid or cls.only) and not self.floor.is_reached(cls, resident):
            return False
        if cls.need_bytes is not None:
            return resident.grant_bytes >= cls.need_bytes
        if self.need_bytes(cls) is None:
            return resident.exclusive
        slots = self.floor.slots
        return all(resident.grant_bytes >= self.need_on(cls, slots[each]) for each in resident.devices)

    def is_held_back(self, cls: JobClass) -> bool:
        """Whether the class waits for an operator's word or its own limit, not for a device."""
        if cls.queue in self.paused:
            return True
        limit = self.limits.get(cls.handler)
        return limit is not None and self.floor.busy.get(cls.handler, 0) >= limit

    def can_wait_for(self, cls: JobClass, slot: Slot) -> bool:
        """Whether the class could start there if all that runs there ended: neither too large for the
        device nor for what pinned executors and other programs leave of it."""
        if not slot.is_open or len(slot.pinned) >= slot.max_residents:
            return False
        need = self.need_on(cls, slot)
        if need == 0:
            return True
        lost = self.ledger.foreign_bytes(slot.device.id)
        for executor in slot.pinned:
            lost += self.ledger.charge_bytes(executor)
        return need <= slot.device.cap_bytes - lost

    def fits_ever(self, cls: JobClass) -> dict[str, Any] | None:
        """None where empty devices could run the class; else the figures that say why not."""
        lane, need, span = self.floor.lane(cls), cls.need_bytes or 0, self.floor.span(cls)
        if (sum(need <= slot.device.cap_bytes for slot in lane) if need else len(lane)) >= span:
            return None
        return {
            "needed_bytes": need,
            "gpus": cls.gpus,
            "devices": [
                {
                    "device": slot.device.id,
                    "total_bytes": slot.device.total_bytes,
                    "grantable_bytes": slot.device.cap_bytes,
                }
                for slot in lane
            ],
        }

    def explain(self, cls: JobClass, n: int) -> dict[str, Any]:
        """Why a waiting job waits: the reason, what each device that may run it has free, and about
        how many go before it."""
        devices = [self._explain_device(cls, slot) for slot in self.floor.lane(cls)]
        return {
            "reason": self._explain_reason(cls, devices),
            "devices": devices,
            "jobs_ahead": sum(
                len(line) if other.priority > cls.priority else line.ahead_of(n)
                for other, line in self.lines.items()
                if other.priority >= cls.priority and self.floor.lane(other) is self.floor.lane(cls)
            ),
            "overtaken": self.bypass.counts.get(n, 0),
        }

    def _explain_reason(self, cls: JobClass, devices: Sequence[dict[str, Any]]) -> str:
        if cls.queue in self.paused:
            return "paused"
        if self.is_held_back(cls):
            return "concurrency_limit"
        reasons = [device["reason"] for device in devices]
        for reason in ("ready", "waiting_for_memory"):
            if reason in reasons:
                return reason
        return "waiting_for_device"

    def _explain_device(self, cls: JobClass, slot: Slot) -> dict[str, Any]:
        device_id = slot.device.id
        free, need = self.ledger.free_bytes(device_id), self.need_on(cls, slot)
        reason = "ready"
        if need > slot.device.cap_bytes:
            reason = "too_small"
        elif slot.closed_for:
            reason = slot.closed_for
        elif not slot.is_open or slot.busy >= slot.max_executors or (need and slot.exclusive is not None):
            reason = "waiting_for_device"
        elif need > max(0, free):
            reason = "waiting_for_memory"
        return {"device": device_id, "free_bytes": max(0, free), "needed_bytes": need, "reason": reason}

    # Keeping the index.

    def _take(self, cls: JobClass, ns: Sequence[int]) -> None:
        line = self.lines[cls]
        line.take(ns)
        if self.bypass.counts:
            self.bypass.forget(ns)
        if line:
            return
        del self.lines[cls]
        left = self.wanted.pop(cls.key) - 1
        if left:
            self.wanted[cls.key] = left
            return
        for resident in self.floor.idle_by_key.get(cls.key, {}).values():
            # Its time may have come while somebody waited for it.
            self._expiry.expect(resident)

    def _rest(self, resident: Resident, now: float) -> None:
        """Nothing is left to do for it."""
        self.floor.rest(resident, now)
        if resident.state == "idle":
            self.ledger.idle(resident.executor)
            self._expiry.expect(resident)

    def _count_overtaken(self, cls: JobClass, ns: Sequence[int], resident: Resident) -> None:
        """Count for each head that waits for room here how many of these went before it."""
        if len(self.lines) == (cls in self.lines):
            return
        slots = [self.floor.slots[device_id] for device_id in resident.devices]
        if resident.grant_bytes <= 0 and all(slot.busy < slot.max_executors for slot in slots):
            return
        for other, line in self.lines.items():
            lane = self.floor.lane(other)
            if other.priority < cls.priority or other is cls or slots[0] not in lane:
                continue
            head = line.head
            times = len(ns) if other.priority > cls.priority else sum(n > head for n in ns)
            if times and not self.is_held_back(other):
                harmed = [
                    slot
                    for slot in slots
                    if is_harmed(other, resident.grant_bytes, is_full=slot.busy >= slot.max_executors)
                    and self.can_wait_for(other, slot)
                    and self.bypass.is_kept(head, slot.device.id)
                ]
                if harmed and self.bypass.count(head, times):
                    self._keep(other, head)

    def _keep(self, cls: JobClass, n: int) -> None:
        """Choose the devices that a job too often overtaken gets next: those where least is at work."""
        slots = [slot for slot in self.floor.lane(cls) if self.can_wait_for(cls, slot)]
        slots.sort(key=lambda slot: (self._bytes_at_work(slot), slot.busy, slot.device.id))
        self.bypass.keep(n, tuple(slot.device.id for slot in slots[: self.floor.span(cls)]))

    def _bytes_at_work(self, slot: Slot) -> int:
        idle = sum(self.ledger.charge_bytes(executor) for executor in slot.idle)
        return self.ledger.reserved_bytes(slot.device.id) - idle

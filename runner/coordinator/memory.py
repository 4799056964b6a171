"""Effect: who uses which bytes: takes readings of devices, and whose processes are whose, into the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from gpu.attribution import Owners
from gpu.view import View
from runner.wire import Processes, Readings


class Memory:
    """The ledger's eyes."""

    def __init__(self, *, view: View, now: Callable[[], float]) -> None:
        self._view = view
        self._ledger = view.ledger
        self._now = now
        self._owners = Owners()
        #: Device id -> its processes by the last reading, and their bytes.
        self._processes: dict[str, dict[int, int | None]] = {}

    def read(self, message: Readings) -> bool:
        """How full the devices are; True where there is more room, or less is owed, than before."""
        now, ledger = self._now(), self._ledger
        listed: defaultdict[str, dict[int, int | None]] = defaultdict(dict)
        for device_id, pid, nbytes in message.processes:
            listed[device_id][pid] = nbytes
        has_more = False
        for device_id, total, used, _free in message.devices:
            if device_id in self._view.floor.slots:
                before = ledger.free_bytes(device_id)
                self._processes[device_id] = listed[device_id]
                ledger.observe(device_id, total, used, now, self._owners.share(listed[device_id]))
                has_more |= ledger.free_bytes(device_id) > before
        for executor in ledger.sweep(now):
            self._owners.forget(executor)
            has_more = True
        return has_more

    def claim(self, message: Processes) -> None:
        """The processes of an executor. They may have been in a reading already, as somebody else's."""
        devices = self._ledger.devices_of(message.executor)
        if not devices:
            return
        self._owners.claim(message.executor, message.pids)
        for device_id in devices:
            self._ledger.correct(device_id, self._owners.share(self._processes.get(device_id, {})))

"""Effect: the devices of this node: which there are, how full they are, and who drives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gpu.device import Device
from gpu.view import View
from runner.coordinator.figures import Figures
from runner.coordinator.fleet import Fleet, Worker
from runner.errors import RefusedStart
from runner.wire import Devices, Readings

#: So long may the first look at the devices take.
FIRST_LOOK_S = 15.0


class Inventory:
    """What the probe tells. `devices` is filled once; a vanished device stays, with its fault."""

    def __init__(
        self, *, view: View, figures: Figures, now: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self._view = view
        self._figures = figures
        self._now = now
        self._wake = wake
        self._known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.devices: dict[str, Device] = {}
        #: Devices whose worker is connected.
        self._driven: set[str] = set()
        #: Executors that do not die -> their devices.
        self._stuck: dict[int, tuple[str, ...]] = {}
        #: Plain words of the probe ("no NVIDIA driver was found: ...").
        self.notes: list[str] = []

    @property
    def has_gpu(self) -> bool:
        """Whether handlers for GPUs run on GPUs (or simulated ones) here; else on the cpu."""
        return any(device.kind != "cpu" for device in self.devices.values())

    async def wait(self) -> None:
        """Until the devices are known.

        Raises:
            RefusedStart: they can't be read, or one that was asked for is missing.
        """
        try:
            await asyncio.wait_for(self._known, FIRST_LOOK_S)
        except TimeoutError as error:
            raise RefusedStart(
                f"the devices could not be read within {FIRST_LOOK_S:g} s (a driver that hangs?); "
                "--gpus none starts without them"
            ) from error

    def start_workers(self, fleet: Fleet) -> None:
        """One for each device but cpu, whose worker starts with the first job that needs it."""
        for device in self.devices.values():
            if device.kind != "cpu":
                fleet.start_worker(device)

    def found(self, message: Devices) -> None:
        """The probe's first word; what a restarted probe finds changes nothing."""
        if self._known.done():
            return
        if message.error is not None:
            self._known.set_exception(RefusedStart(message.error))
            return
        self.notes = message.notes
        for fields in message.devices:
            device = Device.from_dict(fields)
            self.devices[device.id] = device
            self._view.add_device(device, is_open=False)
        self._known.set_result(None)

    def read(self, message: Readings) -> None:
        """How full they are now; what was only draining may be free."""
        for device_id, total, used, _free in message.devices:
            if device_id in self.devices:
                self._view.ledger.observe(device_id, total, used)
        self._figures.faults = message.faults
        self._view.ledger.sweep(self._now())
        # Other programs come and go: what did not fit may fit now.
        self._wake()

    def driven(self, worker: Worker) -> None:
        """A worker is connected: its device takes work."""
        if worker.device is not None:
            self._driven.add(worker.device.id)
            self._settle(worker.device)

    def doubted(self, worker: Worker) -> None:
        """Its link was cut and stands again: nothing is handed to its device before its news is in."""
        if worker.device is not None:
            self._driven.discard(worker.device.id)
            self._settle(worker.device)

    def lost(self, worker: Worker, why: str) -> None:
        """A worker or the probe has died."""
        if worker.device is not None:
            self._driven.discard(worker.device.id)
            self._settle(worker.device)
        elif not self._known.done():
            self._known.set_exception(RefusedStart(f"the probe of devices ended: {why}"))

    def write_off(self, executor: int, device_ids: Sequence[str]) -> set[str]:
        """A process of it does not die of SIGKILL; gives the devices that take no more work for that.

        A GPU in whose driver it hangs is not trusted; of the cpu only its place is lost. Its bytes stay
        charged.
        """
        self._stuck[executor] = tuple(device_ids)
        for device_id in device_ids:
            self._settle(self.devices[device_id])
        return {device_id for device_id in device_ids if self.devices[device_id].kind != "cpu"}

    def restore(self, executor: int) -> None:
        """What did not die is gone after all."""
        device_ids = self._stuck.pop(executor, ())
        if device_ids:
            self._view.ledger.drain(executor, self._now())
        for device_id in device_ids:
            self._settle(self.devices[device_id])

    def _settle(self, device: Device) -> None:
        """Whether the device takes work now, and how much at once."""
        stuck = sorted(executor for executor, ids in self._stuck.items() if device.id in ids)
        is_open = device.id in self._driven and not (stuck and device.kind != "cpu")
        self._view.set_device_open(device.id, is_open)
        if device.kind == "cpu":
            self._view.set_max_executors(device.id, max(0, device.max_executors - len(stuck)))
        self._figures.stuck.pop(device.id, None)
        if stuck:
            names = ", ".join(map(str, stuck))
            effect = "its place is lost" if device.kind == "cpu" else "the device takes no new work"
            self._figures.stuck[device.id] = f"stuck_process: executor {names} was killed and lives; {effect}"
        self._wake()

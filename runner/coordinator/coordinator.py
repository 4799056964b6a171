"""Effect: the coordinator: puts its parts together, and leads them from start to end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gpu.device import Device
from gpu.estimate import Peaks
from gpu.view import View
from runner import control
from runner.coordinator import recovery
from runner.coordinator.archive import Archive
from runner.coordinator.book import Book
from runner.coordinator.briefing import Briefing
from runner.coordinator.desk import Desk
from runner.coordinator.dispatch import Dispatch
from runner.coordinator.figures import Figures
from runner.coordinator.fleet import Fleet, Worker
from runner.coordinator.fronts import Front, Fronts
from runner.coordinator.happening import event
from runner.coordinator.journal import Journal
from runner.coordinator.line import Line
from runner.coordinator.metrics import Metrics
from runner.coordinator.reports import Reports
from runner.coordinator.status import Status
from runner.coordinator.timers import Timers
from runner.coordinator.views import Views
from runner.coordinator.watch import Watch
from runner.errors import Fenced, RefusedStart, RunnerError
from runner.orphans import kill_marked
from runner.plugins import Plugins
from runner.settings import Settings
from runner.spec import HandlerSpec
from runner.spool import read_spools, remove_spool
from runner.stores.access import StoreAccess, open_store
from runner.wire import Call, Devices, Hello, Readings

log = logging.getLogger(__name__)

DEVICES_WAIT_S = 15.0
FRONT_WAIT_S = 15.0
#: The epoch in force is read so often: a coordinator that was overtaken stops, even with nothing to write.
EPOCH_EVERY_S = 1.0
#: After the grace, attempts are ended by the ladder (1.5 s) before workers are killed.
STOP_S = 1.8
FRONTS_STOP_S = 1.5
HANDLER_WAIT_S = 30.0


class Clock:
    """UTC epoch seconds that never jump: wall time at the start plus monotonic time since."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """UTC epoch seconds."""
        return self._offset + time.monotonic()


class Coordinator:
    """One `runner serve`. `start`, then `run_until_stopped`, then `stop`; `abandon` when fenced."""

    def __init__(self, settings: Settings, *, listening: socket.socket, runtime: Path, version: str) -> None:
        self.settings = settings
        self._listening = listening
        self._runtime = runtime
        self._version = version
        self._data = settings.data_dir
        digest = hashlib.sha256(str(self._data.resolve()).encode()).hexdigest()[:8]
        #: Begins the name of every worker of this data folder.
        self._marker = f"r{digest}"
        self._clock = Clock()
        port = listening.getsockname()[1]
        self._briefing = Briefing(settings, data_dir=self._data, port=port, version=version)
        self.devices: dict[str, Device] = {}
        self._devices_known: asyncio.Future[None] | None = None
        self._front_ready = asyncio.Event()
        self._held_questions: list[tuple[Front, control.ToCoordinator]] = []
        self._ready = False
        self.fenced: Fenced | None = None
        self._tasks: list[asyncio.Task[None]] = []
        #: Why the server has to end although it had started.
        self.refused: RunnerError | None = None
        #: Set when the process has to end by itself (fenced, two handlers of one name).
        self.ended = asyncio.Event()

    @property
    def url(self) -> str:
        """Where clients reach this server."""
        host, port = self._listening.getsockname()[:2]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

    # Start.

    async def start(self) -> None:
        """Open everything and make good what was left behind.

        Raises:
            RunnerError: the server can't or must not start.
        """
        for name in ("locks", "spool", "files", "tmp"):
            (self._data / name).mkdir(mode=0o700, exist_ok=True)
        # Fronts take longest to import their libraries: they start first and their questions wait.
        self._fronts = Fronts(
            count=self.settings.fronts, listening=self._listening, config=self._briefing.front, listener=self
        )
        await self._fronts.open()
        self.access: StoreAccess = await open_store(self.settings.store, self._data)
        self.epoch = self._briefing.epoch = await self.access.take_epoch()
        # After the epoch: where the folder's lock was deleted, it makes the one before us let go of these.
        await recovery.wait_for_locks(self._data / "locks")
        kill_marked(f"{self._marker}.")
        await self._build()
        loop = asyncio.get_running_loop()
        self._devices_known = loop.create_future()
        self._fleet.open()
        self._fleet.start_probe()
        await self._recover()
        await self._learn_devices()
        self._tasks.append(loop.create_task(self._describe()))
        self._tasks.append(loop.create_task(self._guard_epoch()))
        self._tasks.append(loop.create_task(self._metrics.watch_lag()))
        self._dispatch.held = False
        self._ready = True
        self.status.phase = "ready"
        held, self._held_questions = self._held_questions, []
        for front, question in held:
            self._desk.question(front, question)
        self._dispatch.wake()
        await asyncio.wait_for(self._front_ready.wait(), FRONT_WAIT_S)

    async def _build(self) -> None:
        settings = self.settings
        counts, last_n, values = await self.access.read(
            lambda store: (store.counts(), store.last_n(), store.values(""))
        )
        self._values: Mapping[str, bytes] = values
        peaks = values.get("learned/peaks")
        self.view = View(peaks=Peaks.loads(msgspec.json.decode(peaks)) if peaks else Peaks())
        for name in values:
            kind, _, rest = name.partition("/")
            if kind == "queue" and rest.endswith("/paused"):
                self.view.pause_queue(rest.removesuffix("/paused"), True)
        self._watch = Watch()
        self.figures = Figures()
        self._journal = Journal(
            self.access,
            self.epoch,
            encode_event=event,
            on_events=self._watch.publish,
            on_fenced=self._on_fenced,
            on_commit=self.figures.commits.add,
        )
        self._timers = Timers(self._clock.now)
        self._line = Line(
            book=Book(last_n, counts),
            view=self.view,
            journal=self._journal,
            timers=self._timers,
            figures=self.figures,
            now=self._clock.now,
            spread=random.random,
            wake=lambda: self._dispatch.wake(),
            queued_max=settings.limits.queued,
            events_kept=settings.limits.events_kept,
            is_watched=self._watch.is_watched,
        )
        self._fleet = Fleet(
            runtime=self._runtime,
            node=socket.gethostname(),
            epoch=self.epoch,
            marker=self._marker,
            worker_config=self._briefing.worker,
            probe_config=self._briefing.probe,
            listener=self,
        )
        self._archive = Archive(self.access, self._journal, self._data / "files")
        self._dispatch = Dispatch(
            line=self._line,
            view=self.view,
            fleet=self._fleet,
            devices=self.devices,
            read_inputs=self._archive.inputs,
        )
        self._reports = Reports(
            line=self._line,
            view=self.view,
            dispatch=self._dispatch,
            fleet=self._fleet,
            on_devices=self._on_devices,
            on_readings=self._on_readings,
            on_call=self._on_call,
            on_learned=self._on_learned,
        )
        self._metrics = Metrics(self.figures)
        self._plugins = Plugins(
            settings.handlers,
            entry_points=settings.entry_points,
            env=self._briefing.executor_env(),
            cwd=Path.cwd(),
            cache={
                name.removeprefix("describe/"): value
                for name, value in values.items()
                if name.startswith("describe/")
            },
            on_change=self._on_handlers,
        )
        self.status = Status(
            settings=settings,
            version=self._version,
            journal=self._journal,
            access=self.access,
            view=self.view,
            fleet=self._fleet,
            figures=self.figures,
            devices=self.devices,
            plugins=self._plugins,
        )
        views = Views(
            line=self._line,
            view=self.view,
            dispatch=self._dispatch,
            fleet=self._fleet,
            devices=self.devices,
            metrics=self._metrics,
            status=self.status,
        )
        self._desk = Desk(
            line=self._line,
            dispatch=self._dispatch,
            archive=self._archive,
            watch=self._watch,
            views=views,
            wait_for_handler=self._wait_for_handler,
        )

    async def _recover(self) -> None:
        spools = read_spools(self._data / "spool")
        jobs = await self.access.read(lambda store: list(store.live()))
        counts = recovery.recover(self._line, jobs, spools)
        await self._journal.flush()
        for spool in spools:
            remove_spool(spool)
        if any(counts.values()):
            log.info(
                "took over %(live)d jobs: %(applied)d messages were kept for us, "
                "%(interrupted)d attempts go again",
                counts,
            )

    async def _learn_devices(self) -> None:
        assert self._devices_known is not None
        try:
            await asyncio.wait_for(self._devices_known, DEVICES_WAIT_S)
        except TimeoutError as error:
            raise RefusedStart(
                f"the devices could not be read within {DEVICES_WAIT_S:g} s (a driver that hangs?); "
                "--gpus none starts without them"
            ) from error

    async def _describe(self) -> None:
        try:
            await self._plugins.run()
        except RunnerError as error:
            # Two handlers of one name: nobody can say which one a job would mean.
            self.refused = error
            self.ended.set()
            return
        for name, value in self._plugins.remembered.items():
            self._journal.value(f"describe/{name}", value)

    async def _guard_epoch(self) -> None:
        while True:
            await asyncio.sleep(EPOCH_EVERY_S)
            self._fleet.check_probe(asyncio.get_running_loop().time())
            in_force = await self.access.read(lambda store: store.epoch())
            if in_force != self.epoch:
                self._on_fenced(Fenced(f"epoch {in_force} is in force, this server has {self.epoch}"))
                return

    # Stop.

    async def stop(self, *, grace_s: float, hurry: asyncio.Event) -> None:
        """Take no more work, let what runs finish for `grace_s` (or until `hurry`), put the rest back."""
        self._desk.closed = True
        self.status.phase = "shutting down"
        self._dispatch.held = True
        self._fronts.send_all(control.encode(control.Drain(grace_s)))
        for post in self._dispatch.posts.values():
            self._dispatch.recall(post)
        self._dispatch.wake()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        while self._is_running() and loop.time() < deadline and not hurry.is_set():
            try:
                await asyncio.wait_for(hurry.wait(), min(0.05, max(0.0, deadline - loop.time())))
            except TimeoutError:
                continue
        if hurry.is_set():
            self._fleet.kill_all()
        closing = asyncio.ensure_future(self._fleet.close(STOP_S))
        second = asyncio.ensure_future(hurry.wait())
        await asyncio.wait({closing, second}, return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            self._fleet.kill_all()
        await closing
        second.cancel()
        if self._journal.failure is None:
            await self._journal.close()
        await self._fronts.close(0.3 if hurry.is_set() else FRONTS_STOP_S)
        await self._close()

    def _is_running(self) -> bool:
        return any(post.line for post in self._dispatch.posts.values())

    async def abandon(self) -> None:
        """Another coordinator has taken over, or the store is gone: stop at once, write nothing."""
        self._fronts.kill_all()
        # A start that was refused early has built nothing yet.
        if hasattr(self, "_dispatch"):
            self._dispatch.held = True
            self._fleet.kill_all()
            await self._fleet.close(0.5)
        await self._fronts.close(0.5)
        await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if hasattr(self, "_timers"):
            self._timers.close()
        if hasattr(self, "access"):
            await self.access.close()

    def _on_fenced(self, fenced: Fenced) -> None:
        if self.fenced is None:
            log.error("fenced: %s", fenced.message)
            self.fenced = fenced
            self.ended.set()

    # What fronts say.

    def on_front(self, front: Front) -> None:
        """A front is there: tell it which handlers there are."""
        if hasattr(self, "_plugins"):
            front.send(self._handlers_message())
        self._front_ready.set()

    def on_question(self, front: Front, question: control.ToCoordinator) -> None:
        """A front asks; before recovery is done its questions wait."""
        if self._ready:
            self._desk.question(front, question)
        else:
            self._held_questions.append((front, question))

    def on_front_lost(self, front: Front) -> None:
        """A front has died; its clients come back by themselves."""
        if hasattr(self, "_watch"):
            self._watch.forget(front)

    # What workers say.

    def on_worker(self, worker: Worker, hello: Hello) -> None:
        """A worker is connected: its device takes work."""
        if worker.device is not None:
            self.view.set_device_open(worker.device.id, True)
            self._dispatch.wake()

    def on_messages(self, worker: Worker, messages: list[bytes]) -> None:
        """A frame of a worker."""
        self._reports.messages(worker, messages)

    def on_worker_lost(self, worker: Worker, why: str) -> None:
        """A worker or the probe has died."""
        if worker.device is not None:
            self.view.set_device_open(worker.device.id, False)
            self._reports.worker_lost(worker, why)
        elif self._devices_known is not None and not self._devices_known.done():
            self._devices_known.set_exception(RefusedStart(f"the probe of devices ended: {why}"))

    def _on_devices(self, found: Devices) -> None:
        assert self._devices_known is not None
        if self._devices_known.done():
            return
        if found.error is not None:
            self._devices_known.set_exception(RefusedStart(found.error))
            return
        self.status.notes = found.notes
        for fields in found.devices:
            device = Device.from_dict(fields)
            self.devices[device.id] = device
            self.view.add_device(device, is_open=False)
        self._line.has_gpu = any(device.kind != "cpu" for device in self.devices.values())
        for device in self.devices.values():
            # The worker of cpu starts with the first job that needs it.
            if device.kind != "cpu":
                self._fleet.start_worker(device)
        self._devices_known.set_result(None)

    def _on_readings(self, readings: Readings) -> None:
        for device_id, total, used, _free in readings.devices:
            if device_id in self.devices:
                self.view.ledger.observe(device_id, total, used)
        self.figures.faults = readings.faults
        if self.view.ledger.sweep(self._clock.now()):
            self._dispatch.wake()

    def _on_call(self, worker: Worker, call: Call) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._answer(worker, call)))
        self._tasks = [task for task in self._tasks if not task.done()]

    async def _answer(self, worker: Worker, call: Call) -> None:
        if call.op != "file" or not isinstance(call.argument, str):
            self._reports.answer(worker, call, None, ("not_found", f"there is no call {call.op!r}"))
            return
        path = await self._archive.find_file(call.argument)
        error = None if path is not None else ("not_found", f"there is no file {call.argument}")
        self._reports.answer(worker, call, None if path is None else str(path), error)

    def _on_learned(self) -> None:
        self._journal.value("learned/peaks", msgspec.json.encode(self.view.peaks.dumps()))

    # Handlers.

    def _on_handlers(self) -> None:
        self._line.described(self._plugins.specs)
        self._fronts.send_all(self._handlers_message())
        self._dispatch.wake()

    def _handlers_message(self) -> bytes:
        specs: list[HandlerSpec] = list(self._plugins.specs.values())
        return control.encode(control.Handlers(specs, self._plugins.describing))

    async def _wait_for_handler(self, name: str) -> None:
        try:
            await asyncio.wait_for(self._plugins.wait_for(name), HANDLER_WAIT_S)
        except TimeoutError:
            log.warning("handler %s is still being described after %g s", name, HANDLER_WAIT_S)

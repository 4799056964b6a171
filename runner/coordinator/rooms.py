"""Effect: the coordinator's parts, made and joined once the store is open: the one place that knows all."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from gpu.attribution import Level, least
from gpu.contexts import Contexts
from gpu.enforcement import BACKENDS
from gpu.view import View
from runner import control
from runner.coordinator import fleet as fleet_room
from runner.coordinator import value_names
from runner.coordinator.accounts import Accounts
from runner.coordinator.archive import Archive
from runner.coordinator.attempt_messages import AttemptMessageHandler
from runner.coordinator.book import Book
from runner.coordinator.briefing import Briefing
from runner.coordinator.care import Care
from runner.coordinator.checkup import Checkup
from runner.coordinator.clock import Clock
from runner.coordinator.desk import Desk
from runner.coordinator.dispatch import Dispatch
from runner.coordinator.event_log import EventLog
from runner.coordinator.executor_messages import ExecutorMessageHandler
from runner.coordinator.figures import Figures
from runner.coordinator.fleet import Fleet
from runner.coordinator.fronts import Fronts
from runner.coordinator.hand import Hand
from runner.coordinator.handler_calls import HandlerCalls
from runner.coordinator.happening import event
from runner.coordinator.inventory import Inventory
from runner.coordinator.job_action_requests import JobActionRequests
from runner.coordinator.job_explainer import JobExplainer
from runner.coordinator.journal import Journal
from runner.coordinator.learning import Learning
from runner.coordinator.line import Line
from runner.coordinator.loads import Loads
from runner.coordinator.memory import Memory
from runner.coordinator.metrics import Metrics
from runner.coordinator.overruns import Overruns
from runner.coordinator.queue_documents import QueueDocuments
from runner.coordinator.queue_requests import QueueRequests
from runner.coordinator.read_requests import ReadRequests
from runner.coordinator.reloads import Reloads
from runner.coordinator.replies import JobReplies
from runner.coordinator.reports import Reports
from runner.coordinator.sleep import Bounds
from runner.coordinator.stats import Stats
from runner.coordinator.status import Status
from runner.coordinator.submission_gate import SubmissionGate
from runner.coordinator.submit_requests import SubmitRequests
from runner.coordinator.timers import Timers
from runner.coordinator.views import Views
from runner.coordinator.waiting import Waiting
from runner.coordinator.watch import Watch
from runner.errors import Fenced
from runner.overrides import Overrides
from runner.plugins import Plugins
from runner.settings import Settings, overrides_now
from runner.spec import HandlerSpec
from runner.stores.access import StoreAccess
from runner.wire import Call, Devices, Over, Processes, Readings

log = logging.getLogger(__name__)


class Owner(Protocol):
    """Whom the parts turn to: the coordinator."""

    def on_fenced(self, fenced: Fenced) -> None:
        """Another coordinator has taken over."""

    def on_handlers(self) -> None:
        """More is known of the handlers."""

    async def wait_for_handler(self, name: str) -> None:
        """Until it is known whether there is such a handler."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What stands before the parts do."""

    settings: Settings
    access: StoreAccess
    epoch: int
    briefing: Briefing
    fronts: Fronts
    runtime: Path
    data: Path
    #: Begins the name of every worker of this data folder.
    marker: str
    version: str
    clock: Clock


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store remembers besides jobs."""

    counts: dict[tuple[str, str], int]
    last_n: int
    values: Mapping[str, bytes]

    @classmethod
    async def read(cls, access: StoreAccess) -> Kept:
        """All of it, in one visit."""
        return await access.read(lambda store: cls(store.counts(), store.last_n(), store.values("")))


class Rooms:
    """The parts. Constructing joins them and starts nothing."""

    def __init__(self, ground: Ground, kept: Kept, *, owner: Owner, workers: fleet_room.Listener) -> None:
        self._ground = ground
        self._kept = kept
        #: What fronts know of it.
        self._told_level: Level | None = None
        self.view = self._make_view()
        self.gate = SubmissionGate()
        self.watch = Watch()
        self.figures = Figures()
        self.timers = Timers(ground.clock.now)
        self.journal = Journal(
            ground.access,
            ground.epoch,
            encode_event=event,
            on_events=self.watch.publish,
            on_fenced=owner.on_fenced,
            on_commit=self.figures.commits.add,
        )
        self.archive = Archive(ground.access, self.journal, ground.data / "files")
        self.line = self._make_line()
        self.memory = self._make_memory()
        self.inventory = Inventory(
            view=self.view,
            figures=self.figures,
            memory=self.memory,
            now=ground.clock.now,
            wake=lambda: self.dispatch.wake(),
            kept=kept.values,
            keep=self.journal.value,
        )
        self.fleet = Fleet(
            runtime=ground.runtime,
            epoch=ground.epoch,
            marker=ground.marker,
            worker_config=ground.briefing.worker,
            probe_config=ground.briefing.probe,
            listener=workers,
        )
        self.dispatch = Dispatch(
            line=self.line,
            view=self.view,
            fleet=self.fleet,
            devices=self.inventory.devices,
            read_inputs=self.archive.inputs,
            cap_bytes=self.memory.cap_bytes,
        )
        self.overruns = Overruns(
            view=self.view,
            dispatch=self.dispatch,
            backend=BACKENDS[ground.settings.devices.enforcement],
        )
        self.learning = self._make_learning()
        self.care = self._make_care()
        self.reports = self._make_reports()
        self.overrides = Overrides(ground.settings.overrides)
        self.plugins = self._make_plugins(owner)
        self.metrics = Metrics(self.figures, ground.fronts)
        self.status = self._make_status()
        self.reloads = self._make_reloads(owner)
        self.desk = self._make_desk(owner)

    def _make_view(self) -> View:
        view = View(weights=self._weights())
        for queue in value_names.paused_queues(self._kept.values):
            view.backlog.pause_queue(queue, True)
        return view

    def _make_memory(self) -> Memory:
        contexts = self._kept.values.get(value_names.CONTEXT_OVERHEAD)
        return Memory(
            view=self.view,
            backend=BACKENDS[self._ground.settings.devices.enforcement],
            contexts=Contexts.loads(msgspec.json.decode(contexts)) if contexts else Contexts(),
            keep=lambda text: self.journal.value(value_names.CONTEXT_OVERHEAD, text),
            now=self._ground.clock.now,
        )

    def _make_learning(self) -> Learning:
        return Learning(
            view=self.view,
            figures=self.figures,
            later=lambda seconds, call: self.timers.at(self._ground.clock.now() + seconds, call),
            kept=self._kept.values,
            keep=self.journal.value,
        )

    def _make_line(self) -> Line:
        limits = self._ground.settings.limits
        book = Book(self._kept.last_n, self._kept.counts)
        waiting = Waiting(
            book=book,
            view=self.view,
            journal=self.journal,
            timers=self.timers,
            now=self._ground.clock.now,
            wake=lambda: self.dispatch.wake(),
            give_up=lambda live, error: self.line.finish(live, "failed", error),
            rows=self.archive.rows,
            find=self.archive.find,
            bounds=Bounds(),
        )
        events = EventLog(self.journal, is_watched=self.watch.is_watched, events_kept=limits.events_kept)
        return Line(
            book=book,
            view=self.view,
            journal=self.journal,
            timers=self.timers,
            figures=self.figures,
            accounts=Accounts(self._kept.values, self._ground.clock.now()),
            now=self._ground.clock.now,
            spread=random.random,
            waiting=waiting,
            events=events,
            queued_max=limits.queued,
        )

    def _make_care(self) -> Care:
        checkup = Checkup(self._ground.briefing.executor_env(), self._ground.marker)
        return Care(
            view=self.view,
            inventory=self.inventory,
            dispatch=self.dispatch,
            check=checkup.run,
            now=self._ground.clock.now,
        )

    def _make_reports(self) -> Reports:
        attempts = AttemptMessageHandler(
            line=self.line,
            view=self.view,
            dispatch=self.dispatch,
            memory=self.memory,
            learning=self.learning,
            on_failed=self.care.ended,
            from_wall_time=self._ground.clock.from_wall_time,
        )
        executors = ExecutorMessageHandler(
            line=self.line,
            view=self.view,
            dispatch=self.dispatch,
            memory=self.memory,
            learning=self.learning,
            attempts=attempts,
            on_stuck=self.care.stuck,
            on_cleared=self.inventory.restore,
        )
        return Reports(
            line=self.line,
            dispatch=self.dispatch,
            fleet=self.fleet,
            attempts=attempts,
            executors=executors,
            on_back=self.inventory.driven,
            others={
                Call: HandlerCalls(archive=self.archive, fleet=self.fleet).on_call,
                Devices: lambda _, message: self.inventory.found(message),
                Readings: lambda _, message: self._on_readings(message),
                Processes: lambda _, message: self.memory.claim(message),
                Over: lambda _, message: self.overruns.asked(message),
            },
        )

    def _make_plugins(self, owner: Owner) -> Plugins:
        settings, values = self._ground.settings, self._kept.values
        return Plugins(
            settings.handlers,
            entry_points=settings.entry_points,
            env=self._ground.briefing.executor_env(),
            cwd=Path.cwd(),
            cache={
                name.removeprefix(value_names.DESCRIPTIONS): text
                for name, text in values.items()
                if name.startswith(value_names.DESCRIPTIONS)
            },
            on_change=owner.on_handlers,
        )

    def _make_status(self) -> Status:
        return Status(
            settings=self._ground.settings,
            version=self._ground.version,
            journal=self.journal,
            access=self._ground.access,
            view=self.view,
            fleet=self.fleet,
            fronts=self._ground.fronts,
            figures=self.figures,
            inventory=self.inventory,
            plugins=self.plugins,
        )

    def _make_desk(self, owner: Owner) -> Desk:
        queues = QueueDocuments(line=self.line, view=self.view, dispatch=self.dispatch)
        views = Views(
            line=self.line,
            view=self.view,
            dispatch=self.dispatch,
            fleet=self.fleet,
            devices=self.inventory.devices,
            metrics=self.metrics,
            status=self.status,
            inventory=self.inventory,
            condition=self.care.document,
            stats=Stats(self.line, self.dispatch, self._weights()),
            queues=queues,
        )
        hand = Hand(
            inventory=self.inventory,
            dispatch=self.dispatch,
            care=self.care,
            journal=self.journal,
            document=views.device,
        )
        loads = Loads(
            dispatch=self.dispatch,
            executor=views.executor,
            wait_for_handler=owner.wait_for_handler,
            gate=self.gate,
        )
        replies = JobReplies(self.line)
        submit = SubmitRequests(line=self.line, replies=replies, gate=self.gate)
        reads = ReadRequests(
            line=self.line,
            archive=self.archive,
            replies=replies,
            views=views,
            explainer=JobExplainer(line=self.line, view=self.view),
            wait_for_handler=owner.wait_for_handler,
        )
        actions = JobActionRequests(
            line=self.line,
            dispatch=self.dispatch,
            archive=self.archive,
            replies=replies,
            gate=self.gate,
        )
        return Desk(
            {
                control.Submit: submit.submit,
                control.GetJob: reads.get_job,
                control.ListJobs: reads.list_jobs,
                control.ReadEvents: reads.read_events,
                control.Look: reads.get_document,
                control.AwaitHandler: reads.await_handler,
                control.Act: actions.act,
                control.SetQueue: QueueRequests(
                    line=self.line, dispatch=self.dispatch, queues=queues
                ).set_queue,
                control.Watch: lambda front, ask: self.watch.add(front, ask.job_id),
                control.Unwatch: lambda front, ask: self.watch.remove(front, ask.job_id),
                control.Reload: self.reloads.answer,
                control.SetDevice: hand.answer,
                control.LoadHandler: loads.load,
                control.UnloadHandler: loads.unload,
            }
        )

    def _weights(self) -> dict[str, float]:
        return {name: tenant.weight for name, tenant in self._ground.settings.tenants.items()}

    def _make_reloads(self, owner: Owner) -> Reloads:
        def put_in_force(overrides: Overrides) -> None:
            self.overrides = overrides
            owner.on_handlers()
            self.remember_descriptions()
            self.warn_of_unused()

        return Reloads(
            plugins=self.plugins,
            waiting=self.line.waiting,
            retire=self.dispatch.control.retire_handler,
            read_overrides=lambda: Overrides(overrides_now(self._ground.settings)),
            put_in_force=put_in_force,
            gate=self.gate,
        )

    def handlers(self) -> dict[str, HandlerSpec]:
        """All handlers that are known, with the operator's options laid over their own."""
        return {name: self.overrides.over(spec) for name, spec in self.plugins.specs.items()}

    def handlers_message(self) -> bytes:
        """All handlers that are known, as fronts are told."""
        return control.encode(control.Handlers(list(self.handlers().values()), self.plugins.describing))

    def sight_message(self) -> bytes:
        """How much is known of who uses what of the devices, as fronts are told."""
        self._told_level = least(self.view.ledger.usage.level(each) for each in self.inventory.devices)
        return control.encode(control.Sight(self._told_level))

    def remember_descriptions(self) -> None:
        """What was described now needs no child at the next start."""
        for key in self.plugins.outdated:
            self.journal.value(value_names.DESCRIPTIONS + key, None)
        for key, text in self.plugins.remembered.items():
            self.journal.value(value_names.DESCRIPTIONS + key, text)

    def warn_of_unused(self) -> None:
        """The operator may have misspelled a name."""
        for name in self.overrides.unused(self.plugins.specs):
            log.warning("[handlers.%s] in the config changes nothing: there is no handler of this name", name)

    def _on_readings(self, readings: Readings) -> None:
        self.inventory.read(readings)
        self.care.read(readings)
        if self.memory.has_measured:
            self.memory.has_measured = False
            self.dispatch.tell_caps()
        self.overruns.look()
        told, message = self._told_level, self.sight_message()
        if told != self._told_level:
            self._ground.fronts.send_all(message)

"""Effect: the lifecycle of the coordinator: start, recovery, shutdown, fencing.

Start: fronts first, because they take longest; then the store and its epoch; then wait until old workers have
released their devices; then recover; then accept jobs. If a worker of an earlier server still runs or no
front connects in time, the start is refused; if another coordinator takes a later epoch meanwhile, this one
is fenced.

Shutdown: workers stop before the journal closes, so that their last messages are committed; fronts close
after it, so that clients get replies to what was committed.

Everything of the coordinator runs on one event loop. Blocking work is done by other processes (writer,
workers, fronts, probe) or in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from runner.coordinator.components import (
    Components,
    JobComponents,
    PersistedState,
    StartContext,
    build_components,
)
from runner.coordinator.front.front_events import FrontEvents
from runner.coordinator.lifecycle import recovery
from runner.coordinator.processes.child_configs import ChildConfigs
from runner.coordinator.processes.front_pool import FrontPool
from runner.coordinator.processes.listeners import Listeners
from runner.coordinator.reload.file_watcher import FileStamps, FileWatcher, read_file_stamps
from runner.coordinator.runtime.background_tasks import BackgroundTasks
from runner.coordinator.runtime.clock import SystemClock
from runner.coordinator.runtime.stop_deadline import StopDeadline
from runner.coordinator.storage.instance_marker import InstanceMarker, load_or_create_marker
from runner.coordinator.storage.journal import Journal
from runner.coordinator.storage.open_store import open_store, save_nameless
from runner.coordinator.storage.room_wait import wait_for_room
from runner.coordinator.storage.ticket_secret import load_or_create_secret
from runner.coordinator.worker_events.worker_events import WorkerEvents
from runner.errors import Fenced, RefusedStart, RunnerError, StoreGone, StoreUnavailable
from runner.processes.orphans import kill_marked
from runner.protocol import front as front_protocol
from runner.settings.settings import Settings
from runner.stores.sqlite.access import StoreAccess

log = logging.getLogger(__name__)

#: A start is refused if no front has connected within this time.
FRONT_START_TIMEOUT_S = 15.0  # guard: front-wait
#: Interval of reading the current epoch of the store: a fenced coordinator stops even if it has nothing to
#: write.
EPOCH_CHECK_INTERVAL_S = 1.0
#: Time of a whole stop after the grace, but for the kill of processes that did not end in it.
STOP_S = 1.7
#: After the grace, the kill ladder ends attempts (1.5 s) before workers are killed.
WORKERS_STOP_S = 1.7
#: The same while the store refuses writes.
SPOOLING_STOP_S = 1.3
#: Time for the writer to exit when nothing is left to write.
ABANDON_S = 1.0
#: Time for fronts to send their last replies before they are killed; the second one is for a hurried stop.
FRONTS_STOP_S = 1.5
HURRIED_STOP_S = 0.3


class Coordinator:
    """One `runner serve`: `start`, then `stop` on request, or `abandon` if it is fenced or refused."""

    def __init__(
        self,
        settings: Settings,
        *,
        listeners: Listeners,
        runtime: Path,
        version: str,
        stop_requested: asyncio.Event | None = None,
    ) -> None:
        """Make it; nothing is opened. `stop_requested` ends a start that waits for room on its disk."""
        self._settings = settings
        self._stop_requested = stop_requested or asyncio.Event()
        self._listeners = listeners
        self._runtime = runtime
        self._version = version
        self._data_dir = settings.data_dir
        port = listeners.tcp.getsockname()[1]
        self._child_configs = ChildConfigs(settings, data_dir=self._data_dir, port=port, version=version)
        self._front_events = FrontEvents()
        self._worker_events = WorkerEvents()
        self._front_pool = FrontPool(
            count=settings.fronts,
            listening=listeners.sockets,
            config=self._child_configs.front_config,
            listener=self._front_events,
        )
        self._access: StoreAccess | None = None
        self._components: Components | None = None
        self._tasks = BackgroundTasks()
        self.epoch = 0
        #: Why the server must stop at once.
        self.fenced: Fenced | None = None
        #: Why the server must end although it had started.
        self.refused: RunnerError | None = None
        #: Set when `fenced` or `refused` is set.
        self.must_stop = asyncio.Event()

    @property
    def url(self) -> str:
        """The address at which clients reach this server over TCP."""
        return self._listeners.urls[0]

    @property
    def components(self) -> Components:
        """The components; they exist once the store is open."""
        assert self._components is not None
        return self._components

    async def start(self) -> None:
        """Open the store, start the processes, recover jobs, and return when a front has connected.

        Raises:
            RunnerError: the server can't or must not start (RefusedStart, Fenced); call `abandon` then.
        """
        instance, self._child_configs.secret = await wait_for_room(
            partial(_prepare_folder, self._data_dir), give_up=self._stop_requested
        )
        # Fronts take longest to import their libraries: they start first and their requests are kept.
        await self._front_pool.open()
        self._access = access = await open_store(self._settings.store, self._data_dir)
        self.epoch = self._child_configs.epoch = await wait_for_room(
            access.take_epoch, give_up=self._stop_requested
        )
        # After taking the epoch: if the lock file was deleted, that makes the previous server release these.
        await recovery.wait_for_device_locks(self._data_dir / "locks")
        for prefix in instance.orphan_prefixes:
            kill_marked(prefix)
        context = StartContext(
            settings=self._settings,
            access=access,
            epoch=self.epoch,
            child_configs=self._child_configs,
            front_pool=self._front_pool,
            runtime_dir=self._runtime,
            data_dir=self._data_dir,
            marker=instance.marker,
            version=self._version,
            clock=SystemClock(),
        )
        persisted = await PersistedState.load(access)
        self._components = components = build_components(
            context, persisted, on_fenced=self.on_fenced, worker_listener=self._worker_events
        )
        self._worker_events.connect(components.devices.device_registry, components.worker_messages)
        self._front_events.connect(
            requests=components.front.requests,
            subscriptions=components.jobs.subscriptions,
            initial_messages=components.initial_front_messages,
        )
        components.devices.worker_pool.open()
        components.devices.worker_pool.start_probe()
        components.devices.worker_pool.start_pings()
        await recovery.recover_stored(
            access, components.jobs.lifecycle, components.jobs.queue_manager, self._data_dir / "spool"
        )
        await components.devices.device_registry.wait_until_known()
        components.jobs.queue_manager.handlers.has_gpu = components.devices.device_registry.has_gpu
        components.devices.device_registry.start_workers(components.devices.worker_pool)
        # Known handlers are loaded before the first request is answered; a missing file stops the start.
        components.front.handler_registry.load_cache()
        self._open_for_jobs(components)
        try:
            await asyncio.wait_for(self._front_events.first_ready.wait(), FRONT_START_TIMEOUT_S)
        except TimeoutError as timeout:
            raise RefusedStart(
                f"no front has answered within {FRONT_START_TIMEOUT_S:g} s; see its messages above"
            ) from timeout

    def _open_for_jobs(self, components: Components) -> None:
        """Accept and start jobs from now on."""
        start = self._tasks.start_supervised
        start("description of handlers", lambda: self._describe_handlers(components))
        start("check of the epoch and the devices", lambda: self._check_each_second(components))
        start("measurement of the loop's lag", components.front.metrics.measure_lag)
        start("index of files", lambda: _check_files(components.jobs))
        if self._settings.reload:
            fingerprint = partial(_fingerprint_handlers, components, self._settings)
            request_reload = components.front.reloader.request_reload
            start("file watcher", lambda: FileWatcher(fingerprint, request_reload).run())
        components.devices.dispatcher.is_paused = False
        components.front.readiness.mark_ready()
        self._front_events.open()
        for message in components.initial_front_messages():
            self._front_pool.send_all(message)
        components.jobs.plan_trigger.wake()

    async def _describe_handlers(self, components: Components) -> None:
        try:
            await components.front.handler_activator.describe_sources()
        except RunnerError as error:
            # Two handlers have the same name: jobs could mean either of them.
            self.refused = error
            self.must_stop.set()

    async def _check_each_second(self, components: Components) -> None:
        assert self._access is not None
        while self.fenced is None:
            await asyncio.sleep(EPOCH_CHECK_INTERVAL_S)
            components.devices.device_registry.check_reading_ages()
            components.devices.health_monitor.evaluate()
            try:
                in_force = await self._access.run_read(lambda store: store.current_epoch())
            except StoreGone as gone:
                self._on_store_gone(components, gone)
                return
            except RunnerError as error:
                log.error("failed to read the current epoch: %s", error.message)
                continue
            if in_force != self.epoch:  # guard: epoch-each-second
                self.on_fenced(Fenced(f"the store has epoch {in_force}, this server has {self.epoch}"))

    def _on_store_gone(self, components: Components, gone: StoreGone) -> None:
        """Accept nothing more and stop: a start would not find what is stored from now on."""
        log.error("%s; the server stops", gone.message)
        components.front.gate.close(gone)
        components.front.readiness.mark_store_gone(gone.message)
        self.refused = gone
        self.must_stop.set()

    async def stop(self, *, grace_s: float, hurry: asyncio.Event) -> None:
        """Accept no more work, let attempts finish for `grace_s` (or until `hurry`), requeue the others."""
        components, deadline = self.components, StopDeadline(grace_s + STOP_S, hurry)
        components.front.gate.close()
        components.front.readiness.mark_shutting_down()
        components.devices.dispatcher.is_paused = True
        self._front_pool.send_all(front_protocol.encode(front_protocol.ShutdownBegun(grace_s)))
        components.devices.dispatcher.control.recall_all_staged()
        busy_count = len(components.devices.dispatcher.executors.with_attempts())
        if busy_count and grace_s:
            log.info(
                "stopping: running jobs (%d) have %g s to finish; a second Ctrl-C or TERM ends them now",
                busy_count,
                grace_s,
            )
        else:
            log.info("stopping")
        await _wait_until(lambda: not components.devices.dispatcher.executors.with_attempts(), grace_s, hurry)
        await self._stop_workers(components, hurry)
        components.devices.estimate_recorder.store_changes()
        await self._close_journal(components.jobs.journal, deadline)
        if isinstance(self.refused, StoreGone) and self._access is not None:
            self.refused = await save_nameless(self._access, self.refused, self.epoch)
        front_timeout_s = HURRIED_STOP_S if hurry.is_set() else FRONTS_STOP_S
        if not await deadline.wait(self._front_pool.close(front_timeout_s)):
            await self._front_pool.close(0.0)
        await self._close(deadline.remaining_s())  # guard: writer-within-stop

    async def _close_journal(self, journal: Journal, deadline: StopDeadline) -> None:
        try:
            if await deadline.wait(journal.close()):
                return
            why = "the store does not answer"
        except StoreUnavailable as refused:
            why = refused.message
        log.error("stopped; the last messages of workers are spooled, not stored: %s", why)

    async def _stop_workers(self, components: Components, hurry: asyncio.Event) -> None:
        """Stop the workers; running attempts are ended by the kill ladder, or at once when `hurry` is set."""
        # Without the store there are no acknowledgements to wait for: workers spool their last messages.
        timeout_s = WORKERS_STOP_S if components.jobs.journal.failure is None else SPOOLING_STOP_S
        closing = asyncio.ensure_future(components.devices.worker_pool.close(timeout_s))
        hurried = asyncio.ensure_future(hurry.wait())
        await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not closing.done():
            components.devices.worker_pool.kill_all()
        await closing

    async def abandon(self) -> None:
        """Stop at once and write nothing: another coordinator has taken over, or the start was refused."""
        self._front_pool.kill_all()
        if self._components is not None:
            self._components.devices.dispatcher.is_paused = True
            self._components.devices.worker_pool.kill_all()
            await self._components.devices.worker_pool.close(0.5)
        await self._front_pool.close(0.5)
        await self._close(ABANDON_S)

    async def _close(self, writer_timeout_s: float) -> None:
        await self._tasks.cancel_all()
        if self._components is not None:
            self._components.front.reloader.close()
            self._components.jobs.timers.close()
        if self._access is not None:
            await self._access.close(writer_timeout_s)

    def on_fenced(self, fenced: Fenced) -> None:
        """Stop because another coordinator has taken over the store; only the first call counts."""
        if self.fenced is None:
            log.error("fenced: %s", fenced.message)
            self.fenced = fenced
            self.must_stop.set()


async def _check_files(jobs: JobComponents) -> None:
    """Complete the index of files, and remove the files of deleted jobs."""
    try:
        await jobs.files.build_index()
    except OSError as error:
        log.error("failed to index all files, so finding a file takes longer: %s", error)
    await jobs.files.remove_orphans(jobs.lifecycle.registry.by_id, jobs.job_reader.existing_ids)


async def _fingerprint_handlers(components: Components, settings: Settings) -> FileStamps:
    """Read the stamps of all handler files and of the config, in a thread."""
    folders = components.front.handler_registry.watched_folders()
    return await asyncio.to_thread(read_file_stamps, folders, settings.config)


async def _prepare_folder(data_dir: Path) -> tuple[InstanceMarker, bytes]:
    """Create the folders in the data folder; return its marker and the secret of tickets."""
    # First: what is there already tells whether an older version used the folder.
    instance = load_or_create_marker(data_dir)
    for name in ("locks", "spool", "files", "tmp"):
        (data_dir / name).mkdir(mode=0o700, exist_ok=True)
    return instance, load_or_create_secret(data_dir)


async def _wait_until(is_done: Callable[[], bool], timeout_s: float, hurry: asyncio.Event) -> None:
    """Wait for `is_done()`, checking every 20 ms; give up after `timeout_s` or when `hurry` is set."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not is_done() and loop.time() < deadline and not hurry.is_set():
        try:
            await asyncio.wait_for(hurry.wait(), 0.02)
        except TimeoutError:
            continue

"""Effect: the main thread's work: load the handler once, then run attempt after attempt until told to end."""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from runner.executor import bootstrap, failures
from runner.executor.attempt_run import AttemptRun
from runner.executor.attempt_runner import AttemptRunner
from runner.executor.cancel_signal import CancelSignal
from runner.executor.channel import ChannelThread
from runner.executor.context import Context
from runner.executor.environment import ExecutorEnvironment
from runner.executor.loader import LoadedHandler, find_target, import_source
from runner.executor.sender import Sender
from runner.executor.shared_page import SharedPage
from runner.executor.worker_commands import WorkerCommands
from runner.handlers.decorator import count_positional
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from runner.executor.batch_run import BatchRun
    from runner.executor.slot_runs import SlotRunner


class Executor:
    """Built from its descriptors; `run` does not return."""

    def __init__(self, descriptors: bootstrap.Descriptors, page: SharedPage) -> None:
        self._shield = CancelSignal()
        self._outbox = Sender(descriptors.channel, descriptors.wake, page, self._shield, bootstrap.exit_lost)
        #: Handed over and not started, in order, a batch as one. Both ends are taken from by atomic pops.
        self._staged: deque[worker_protocol.AttemptSpec | list[worker_protocol.AttemptSpec]] = deque()
        self._runner = AttemptRunner(page, self._outbox, self._shield, self._staged)
        self._commands = WorkerCommands(page, self._outbox, self._shield, self._staged, self._runner)
        self._channel = ChannelThread(
            descriptors.channel,
            descriptors.wake,
            self._outbox,
            handlers=self._commands.by_type(),
            do_due=self._commands.tick,
            on_lost=bootstrap.exit_lost,
        )
        self._slots: SlotRunner | None = None

    def run(self) -> NoReturn:
        """Do what the worker says until it says to end."""
        commands = self._commands
        self._runner.capture.install()
        self._shield.install()
        os.register_at_fork(after_in_child=self._forked)
        self._channel.start()
        while commands.site is None:
            commands.wait()
        site = commands.site
        program, first = self._load(site)
        if self._slots is not None:
            assert first is None or isinstance(first, AttemptRun)
            self._slots.serve(program, first)
            self._unload(program, site)
        if first is not None:
            self._execute(first, program)
        del first
        while True:
            try:
                taken = self._staged.popleft()
            except IndexError:
                if commands.is_unloading:
                    self._unload(program, site)
                commands.wait()
                continue
            self._execute(self._make_run(taken, site), program)

    def _make_run(
        self,
        taken: worker_protocol.AttemptSpec | list[worker_protocol.AttemptSpec],
        site: ExecutorEnvironment,
    ) -> AttemptRun | BatchRun:
        if not isinstance(taken, list):
            return AttemptRun(taken, site) if self._slots is None else self._slots.make_run(taken)
        from runner.executor.batch_run import BatchRun

        return BatchRun(taken, site)

    def _execute(self, run: AttemptRun | BatchRun, program: LoadedHandler) -> None:
        if isinstance(run, AttemptRun):
            self._runner.run_attempt(run, program)
        else:
            self._runner.run_batch(run, program)

    def _load(self, site: ExecutorEnvironment) -> tuple[LoadedHandler, AttemptRun | BatchRun | None]:
        """Import and load; with the first attempt, if it is there, taken as the one all this is done for."""
        begin = time.monotonic()
        owner: AttemptRun | BatchRun | None = None
        try:
            if site.config.slots > 1:
                self._slots = self._commands.slots = self._make_slots(site)
            module = import_source(site.config.source)
            if site.torch_memory is not None:
                site.torch_memory.enforce_cap()
            owner = self._take_owner(site)
            program = LoadedHandler(
                find_target(module, site.config.source.attr), is_batched=site.config.is_batched
            )
            load = program.find_hook("load")
            if load is not None:
                context = Context(owner or _unowned(site))
                self._finish_hook(load(context) if count_positional(load) else load(), context)
            if site.config.kind in ("coroutine", "async_generator"):
                self._runner.invocation.event_loop()
        except SystemExit as error:
            self._runner.exit(bootstrap.exit_code(error))
        except BaseException as error:
            self._not_loaded(site, error)
        loaded = worker_protocol.ExecutorLoaded(site.config.executor, time.monotonic() - begin)
        if site.torch_memory is not None:
            site.torch_memory.enforce_cap()
            site.torch_memory.add_reserved(loaded)
        self._outbox.send_message(worker_protocol.encode(loaded))
        return program, owner

    def _make_slots(self, site: ExecutorEnvironment) -> SlotRunner:
        from runner.executor.slot_runs import SlotRunner

        return SlotRunner(site, self._staged, self._runner)

    def _take_owner(self, site: ExecutorEnvironment) -> AttemptRun | BatchRun | None:
        try:
            owner = self._make_run(self._staged.popleft(), site)
        except IndexError:
            return None
        self._runner.attribute_load(owner)
        return owner

    def _finish_hook(self, result: Any, context: Context) -> None:
        """Hooks may be coroutines too."""
        if hasattr(result, "__await__"):
            self._runner.invocation.run_coroutine(context._run, result)

    def _not_loaded(self, site: ExecutorEnvironment, error: BaseException) -> NoReturn:
        capture = self._runner.capture
        found = failures.classify_load_error(error)
        detail = {**(found.detail or {}), "printed": capture.early_tail()}
        capture.flush()
        failed = worker_protocol.LoadFailed(site.config.executor, found.code, found.message, detail)
        self._outbox.send_message(worker_protocol.encode(failed))
        self._runner.exit(bootstrap.EXIT_NOT_LOADED)

    def _unload(self, program: LoadedHandler, site: ExecutorEnvironment) -> NoReturn:
        unload = program.find_hook("unload")
        code = 0
        if unload is not None:
            try:
                self._finish_hook(unload(), Context(_unowned(site)))
            except BaseException as error:
                # Nobody waits for this executor any more; its worker's log gets the trace.
                os.write(2, failures.format_traceback(error).encode())
                code = 1
        # Users' own exit hooks may have something to save; threads that never end may not hold us up.
        atexit._run_exitfuncs()
        self._runner.exit(code)

    def _forked(self) -> None:
        """In a child that the handler forked: it is not us, so it must not speak or listen for us."""
        self._outbox.mute()
        self._runner.capture.restore_streams()
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _unowned(site: ExecutorEnvironment) -> AttemptRun:
    """Stands for the attempt of a hook that no job waits for."""
    return AttemptRun(worker_protocol.AttemptSpec("", 0, site.config.name, b"null"), site)

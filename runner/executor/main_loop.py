"""Effect: the main thread: loads the handler once, then runs attempts until it is unloaded."""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from runner.executor import bootstrap, failures, tqdm_progress
from runner.executor.attempt_run import AttemptRun
from runner.executor.attempt_runner import AttemptRunner
from runner.executor.cancel_signal import CancelSignal
from runner.executor.channel import ChannelThread
from runner.executor.context import Context
from runner.executor.environment import ExecutorEnvironment
from runner.executor.loader import LoadedHandler, find_target, import_source
from runner.executor.sender import Sender
from runner.executor.sequential_runs import SequentialRunner
from runner.executor.shared_page import SharedPage
from runner.executor.worker_commands import WorkerCommands
from runner.handlers.decorator import count_positional
from runner.protocol import worker as worker_protocol

if TYPE_CHECKING:
    from runner.executor.slot_runs import SlotRunner


class MainLoop:
    """The executor's main thread, which runs all user code; joins the parts of the process.

    Created from the process's descriptors.
    """

    def __init__(self, descriptors: bootstrap.Descriptors, page: SharedPage) -> None:
        self._cancel_signal = CancelSignal()
        self._sender = Sender(
            descriptors.channel, descriptors.wake, page, self._cancel_signal, bootstrap.exit_lost
        )
        #: Assigned and not started, in order, a batch as one item. Both ends are popped atomically.
        self._staged: deque[worker_protocol.AttemptSpec | list[worker_protocol.AttemptSpec]] = deque()
        self._attempt_runner = AttemptRunner(page, self._sender, self._staged)
        self._sequential_runner = SequentialRunner(self._attempt_runner, self._cancel_signal, self._staged)
        self._commands = WorkerCommands(
            page,
            self._sender,
            self._cancel_signal,
            self._staged,
            self._attempt_runner,
            self._sequential_runner,
        )
        self._channel = ChannelThread(
            descriptors.channel,
            descriptors.wake,
            self._sender,
            handlers=self._commands.handlers_by_type(),
            do_due=self._commands.flush_due_progress,
            on_lost=bootstrap.exit_lost,
        )

    def run(self) -> NoReturn:
        """Carry out the worker's commands until it unloads the executor.

        Exits with 0 after an unload, with 73 if the handler can't be loaded, with 72 after an attempt that
        left the process unusable, and with the status of a `sys.exit` in user code.
        """
        commands = self._commands
        capture = self._attempt_runner.capture
        capture.install()
        tqdm_progress.follow_tqdm(capture.current_run)
        self._cancel_signal.install()
        os.register_at_fork(after_in_child=self._after_fork_in_child)
        self._channel.start()
        while commands.environment is None:
            self._sequential_runner.wait_for_work()
        environment = commands.environment
        runner, handler = self._load(environment)
        runner.serve(handler, environment)
        self._unload(handler, environment)

    def _load(self, environment: ExecutorEnvironment) -> tuple[SequentialRunner | SlotRunner, LoadedHandler]:
        """Import and load, and report it; the load is attributed to the first attempt, if that is there.

        Exits if user code raises.
        """
        begin = time.monotonic()
        config, memory = environment.config, environment.torch_memory
        runner: SequentialRunner | SlotRunner = self._sequential_runner
        try:
            if config.slots > 1:
                runner = self._make_slot_runner(config.slots)
            module = import_source(config.source)
            if memory is not None:
                memory.enforce_cap()
            owner = runner.take_load_owner(environment)
            handler = LoadedHandler(find_target(module, config.source.attr), is_batched=config.is_batched)
            load = handler.find_hook("load")
            if load is not None:
                context = Context(owner or _placeholder_run(environment))
                self._finish_hook(load(context) if count_positional(load) else load(), context)
            if config.kind in ("coroutine", "async_generator"):
                self._attempt_runner.invocation.event_loop()
        except SystemExit as error:
            self._attempt_runner.exit(bootstrap.exit_code(error))
        except BaseException as error:
            self._fail_load(environment, error)
        loaded = worker_protocol.ExecutorLoaded(config.executor, time.monotonic() - begin)
        if memory is not None:
            memory.enforce_cap()
            memory.add_reserved(loaded)
        self._sender.send_message(worker_protocol.encode(loaded))
        return runner, handler

    def _make_slot_runner(self, slot_count: int) -> SlotRunner:
        # Imported late, as its event loop is: most executors run one attempt at a time.
        from runner.executor.slot_runs import SlotRunner

        runner = SlotRunner(self._attempt_runner, slot_count, self._staged)
        self._commands.set_runner(runner)
        return runner

    def _finish_hook(self, result: Any, context: Context) -> None:
        """Run the coroutine that a `load` or `unload` returned, if it is one."""
        if hasattr(result, "__await__"):
            self._attempt_runner.invocation.run_coroutine(context._run, result)

    def _fail_load(self, environment: ExecutorEnvironment, error: BaseException) -> NoReturn:
        """Report the failed load with the last lines printed before it, and exit with status 73."""
        capture = self._attempt_runner.capture
        found = failures.classify_load_error(error)
        detail = {**(found.detail or {}), "printed": capture.early_tail()}
        capture.flush()
        failed = worker_protocol.LoadFailed(environment.config.executor, found.code, found.message, detail)
        self._sender.send_message(worker_protocol.encode(failed))
        self._attempt_runner.exit(bootstrap.EXIT_NOT_LOADED)

    def _unload(self, handler: LoadedHandler, environment: ExecutorEnvironment) -> NoReturn:
        """Call `unload` and the exit hooks; exit with status 0, or 1 if `unload` raised."""
        unload = handler.find_hook("unload")
        code = 0
        if unload is not None:
            try:
                self._finish_hook(unload(), Context(_placeholder_run(environment)))
            except BaseException as error:
                # No attempt can carry the traceback; it goes to the worker's log.
                os.write(2, failures.format_traceback(error).encode())
                code = 1
        # Run the users' own exit hooks, which may save something, without waiting for threads that never end.
        atexit._run_exitfuncs()
        self._attempt_runner.exit(code)

    def _after_fork_in_child(self) -> None:
        """Mute a child that the handler forked: it must not use the channel as this executor."""
        self._sender.mute()
        self._attempt_runner.capture.restore_streams()
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _placeholder_run(environment: ExecutorEnvironment) -> AttemptRun:
    """Return a stand-in for the attempt of a hook that no job caused."""
    return AttemptRun(worker_protocol.AttemptSpec("", 0, environment.config.name, b"null"), environment)

"""Effect: the main thread's work: load the handler once, then run attempt after attempt until told to end."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from runner import simulation, wire
from runner.context import Context
from runner.definition import positional
from runner.execution import failure, process
from runner.execution.capture import Capture
from runner.execution.channel import LOOK_S, Channel
from runner.execution.driver import Driver
from runner.execution.loading import Program, find, import_source
from runner.execution.outbox import HOLD_S, Outbox
from runner.execution.page import Page
from runner.execution.running import Running
from runner.execution.shield import Shield
from runner.execution.site import Site

if TYPE_CHECKING:
    from runner.execution.slots import Slots
    from runner.execution.together import Together

#: Longest wait for the worker to take the last words.
FINISH_S = 5.0
#: Flags and raises kept for attempts that are neither staged nor running at that instant.
STRAY_MAX = 64


class Executor:
    """Built from its descriptors; `run` does not return."""

    def __init__(self, descriptors: process.Descriptors, page: Page) -> None:
        self._page = page
        self._shield = Shield()
        self._outbox = Outbox(descriptors.channel, descriptors.wake, page, self._shield, process.lost)
        self._capture = Capture(lambda: self._current)
        self._slots: Slots | None = None
        self._driver = Driver()
        self._channel = Channel(
            descriptors.channel,
            descriptors.wake,
            self._outbox,
            on=self._duties(),
            tick=self._tick,
            lost=process.lost,
        )
        self._main = threading.get_ident()
        self._pid = os.getpid()
        #: Handed over and not started, in order, a batch as one. Both ends are taken from by atomic pops.
        self._line: deque[wire.Attempt | list[wire.Attempt]] = deque()
        #: Locked while the main thread has nothing to do.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._current: Running | Together | None = None
        self._stray: deque[wire.Flag] = deque(maxlen=STRAY_MAX)
        self._site: Site | None = None
        self._is_unloading = False

    def run(self) -> NoReturn:
        """Do what the worker says until it says to end."""
        self._capture.install()
        self._shield.install()
        os.register_at_fork(after_in_child=self._forked)
        self._channel.start()
        while self._site is None:
            self._gate.acquire()
        site = self._site
        program, first = self._load(site)
        if self._slots is not None:
            assert first is None or isinstance(first, Running)
            self._slots.serve(program, first)
            self._unload(program)
        if first is not None:
            self._execute(first, program)
        del first
        while True:
            try:
                taken = self._line.popleft()
            except IndexError:
                if self._is_unloading:
                    self._unload(program)
                self._gate.acquire()
                continue
            self._execute(self._made(taken, site), program)

    def _made(self, taken: wire.Attempt | list[wire.Attempt], site: Site) -> Running | Together:
        if not isinstance(taken, list):
            return Running(taken, site) if self._slots is None else self._slots.made(taken)
        from runner.execution.together import Together

        return Together(taken, site)

    def _execute(self, run: Running | Together, program: Program) -> None:
        if isinstance(run, Running):
            self._attempt(run, program)
        else:
            self._batch(run, program)

    def _duties(self) -> dict[type, Callable[[Any], None]]:
        return {
            wire.Configure: self._on_configure,
            wire.Run: self._on_run,
            wire.Recall: self._on_recall,
            wire.Flag: self._on_flag,
            wire.Raise: self._on_raise,
            wire.Unload: self._on_unload,
            wire.Grant: self._on_grant,
            wire.Answer: self._on_answer,
        }

    # What follows, up to `_tick`, runs in the channel thread.

    def _on_configure(self, config: wire.Configure) -> None:
        simulation.report_to(
            lambda size: self._outbox.message(wire.encode(wire.Allocated(config.executor, size)))
        )
        self._site = Site(config, self._page, self._outbox, self._shield)
        self._wake_main()

    def _on_run(self, run: wire.Run) -> None:
        assert self._site is not None
        if self._site.config.is_batched:
            self._line.append(run.attempts)
        else:
            self._line.extend(run.attempts)
        self._wake_main()

    def _on_recall(self, recall: wire.Recall) -> None:
        taken: list[tuple[str, int]] = []
        while True:
            try:
                last = self._line.pop()
            except IndexError:
                break
            for attempt in last[::-1] if isinstance(last, list) else (last,):
                taken.append((attempt.job_id, attempt.attempt))
        self._outbox.message(wire.encode(wire.Recalled(recall.executor, taken[::-1])))

    def _on_flag(self, flag: wire.Flag) -> None:
        key = (flag.job_id, flag.attempt)
        for attempt in list(self._line):
            # One of a batch that waits is left out when that starts.
            if not isinstance(attempt, list) and (attempt.job_id, attempt.attempt) == key:
                if self._withdraw(attempt, flag.reason):
                    return
                break
        # Kept first, then looked at: the main thread sets `_current` first and then looks here, so one of
        # both finds it, also where the attempt is just being taken from the line.
        self._stray.append(flag)
        run = self._running(key)
        if run is not None and not run.cancelled:
            run.flag(flag.reason)

    def _running(self, key: tuple[str, int]) -> Running | None:
        if self._slots is not None:
            return self._slots.runs.get(key)
        run = self._current
        return None if run is None else run.find(key)

    def _withdraw(self, attempt: wire.Attempt, reason: str) -> bool:
        try:
            self._line.remove(attempt)
        except ValueError:
            return False
        assert self._site is not None
        ended = wire.Ended(attempt.job_id, attempt.attempt, 0, "cancelled", reason, retryable=False)
        self._outbox.ended(Running(attempt, self._site), ended, None, hold=False)
        return True

    def _on_raise(self, message: wire.Raise) -> None:
        if self._slots is not None:
            # Where several run there is nobody to raise it in: it would hit another one.
            self._slots.quit()
            return
        run = self._current
        if run is not None and run.find((message.job_id, message.attempt)) is not None and not run.closed:
            run.raise_requested = True
            signal.pthread_kill(self._main, signal.SIGUSR1)

    def _on_unload(self, _: wire.Unload) -> None:
        self._is_unloading = True
        if self._slots is not None:
            self._slots.is_unloading = True
        self._wake_main()

    def _on_grant(self, grant: wire.Grant) -> None:
        if self._site is not None:
            self._site.config.grant_bytes = grant.grant_bytes
            self._site.config.cap_bytes = grant.cap_bytes

    def _on_answer(self, answer: wire.Answer) -> None:
        if self._site is not None:
            self._site.answer(answer)

    def _tick(self, now: float) -> float | None:
        if self._slots is not None:
            return self._slots.tick(now)
        run = self._current
        if run is None:
            return now + HOLD_S if self._line else None
        run.flush_progress(now)
        if self._line:
            return now + HOLD_S
        return min(now + LOOK_S, run.progress_due) if run.progress_held else now + LOOK_S

    def _wake_main(self) -> None:
        if self._slots is not None:
            self._slots.wake()
        if self._gate.locked():
            self._gate.release()

    # What follows runs in the main thread.

    def _load(self, site: Site) -> tuple[Program, Running | Together | None]:
        """Import and load; with the first attempt, if it is there, taken as the one all this is done for."""
        begin = time.monotonic()
        owner: Running | Together | None = None
        try:
            if site.config.slots > 1:
                from runner.execution.slots import Slots

                self._slots = Slots(site, self._line, self._capture, self._driver, self)
            module = import_source(site.config.source)
            if site.memory is not None:
                site.memory.enforce()
            owner = self._owner(site)
            program = Program(find(module, site.config.source.attr), is_batched=site.config.is_batched)
            load = program.hook("load")
            if load is not None:
                context = Context(owner or Running(wire.Attempt("", 0, site.config.name, b"null"), site))
                self._finish_hook(load(context) if positional(load) else load(), context)
            if site.config.kind in ("coroutine", "async_generator"):
                self._driver.loop()
        except SystemExit as error:
            self.exit(process.exit_code(error))
        except BaseException as error:
            self._not_loaded(site, error)
        loaded = wire.Loaded(site.config.executor, time.monotonic() - begin)
        if site.memory is not None:
            site.memory.enforce()
            site.memory.loaded(loaded)
        self._outbox.message(wire.encode(loaded))
        return program, owner

    def _owner(self, site: Site) -> Running | Together | None:
        try:
            owner = self._made(self._line.popleft(), site)
        except IndexError:
            return None
        self._current = owner
        self._capture.hand_early(owner)
        return owner

    def _finish_hook(self, result: Any, context: Context) -> None:
        """Hooks may be coroutines too."""
        if hasattr(result, "__await__"):
            self._driver.complete(context._run, result)

    def _not_loaded(self, site: Site, error: BaseException) -> NoReturn:
        found = failure.load_failure(error)
        detail = {**(found.detail or {}), "printed": self._capture.early_tail()}
        self._capture.flush()
        failed = wire.LoadFailed(site.config.executor, found.code, found.message, detail)
        self._outbox.message(wire.encode(failed))
        self.exit(process.EXIT_NOT_LOADED)

    def _attempt(self, run: Running, program: Program) -> None:
        """One attempt, from its start to its last word."""
        self._take_up(run)
        ended = wire.Ended(run.job_id, run.number, 0, None)
        memory = run.site.memory
        if memory is not None:
            memory.enforce()
        run.started_at = ended.started_at = time.time()
        begin_ns = self._page.start()
        is_fatal = self._perform(run, program, ended)
        if os.getpid() != self._pid:
            # A child that the handler forked came back through it; it must not speak for us.
            os._exit(0)
        self._page.finish()
        ended.run_s = (time.monotonic_ns() - begin_ns) / 1e9
        if memory is not None:
            memory.ended(ended)
        run.close()
        self._capture.flush()
        marked = self._capture.mark(run)
        run.conclude(ended, leaves=is_fatal or run.raise_requested)
        self._outbox.ended(run, ended, marked, hold=bool(self._line) and not is_fatal)
        self._current = None
        if is_fatal or run.raise_requested:
            self.exit(process.EXIT_UNUSABLE)

    def _batch(self, batch: Together, program: Program) -> None:
        """One batch, from its start to the last word of the last of its items."""
        self._take_up(batch)
        try:
            is_fatal = batch.perform(program, self._driver, self._capture, self._line)
        except SystemExit as error:
            self._leave(batch, process.exit_code(error))
        self._current = None
        if is_fatal:
            self.exit(process.EXIT_UNUSABLE)

    def _take_up(self, run: Running | Together) -> None:
        self._current = run
        self._shield.install()
        self._capture.hand_early(run)
        if self._stray:
            self.catch_up(run)

    def catch_up(self, run: Running | Together) -> None:
        """A flag that came while this attempt was on its way from the line to here."""
        for flag in list(self._stray):
            found = run.find((flag.job_id, flag.attempt))
            if found is not None and not found.cancelled:
                found.flag(flag.reason)
        self._stray.clear()

    def _perform(self, run: Running, program: Program, ended: wire.Ended) -> bool:
        """Call user code and write what came of it into `ended`; True where this process must end."""
        found: failure.Failure
        try:
            try:
                arguments = program.arguments(run.attempt.input, Context(run))
                self._shield.arm(run)
                value = program.call(*arguments)
                ended.output = self._driver.output(run, value)
                return False
            finally:
                self._shield.disarm()
        except SystemExit as error:
            self._leave(run, process.exit_code(error))
        except BaseException as error:
            self._shield.disarm()
            found = failure.of(error)
            failure.let_go(error)
        if found.code == "device_out_of_memory":
            failure.empty_device_cache()
        ended.code, ended.message, ended.detail = found.code, found.message, found.detail
        ended.retryable, ended.retry_at = found.retryable, found.retry_at
        return found.is_fatal

    def _leave(self, run: Running | Together, code: int) -> NoReturn:
        """The handler ended the process: a crash, which the worker will tell; its words still count."""
        if os.getpid() != self._pid:
            os._exit(code)
        run.close()
        self._capture.flush()
        self.exit(code)

    def _unload(self, program: Program) -> NoReturn:
        unload = program.hook("unload")
        code = 0
        if unload is not None:
            try:
                assert self._site is not None
                empty = Running(wire.Attempt("", 0, self._site.config.name, b"null"), self._site)
                self._finish_hook(unload(), Context(empty))
            except BaseException as error:
                # Nobody waits for this executor any more; its worker's log gets the trace.
                os.write(2, failure.trace(error).encode())
                code = 1
        # Users' own exit hooks may have something to save; threads that never end may not hold us up.
        atexit._run_exitfuncs()
        self.exit(code)

    def exit(self, code: int) -> NoReturn:
        """Say what is still to be said, and end."""
        self._outbox.finish(FINISH_S)
        os._exit(code)

    def _forked(self) -> None:
        """In a child that the handler forked: it is not us, so it must not speak or listen for us."""
        self._outbox.mute()
        self._capture.restore()
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

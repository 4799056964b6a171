"""Effect: one executor's life as its worker leads it, from the order to load to its last process gone."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from runner import framing, wire
from runner.launch import WorkerConfig
from runner.wire import STUCK, Allocated, Cancel, Gone, Load, Loaded, LoadFailed, Marked, Recalled, Run
from runner.worker import report, tree, verdict
from runner.worker.captured import Captured
from runner.worker.ending import Ending
from runner.worker.growth import Growth
from runner.worker.leftovers import Leftovers
from runner.worker.line import Entry, Line
from runner.worker.oversight import START_TOLD_S, STOPPING, Oversight
from runner.worker.process import ExecutorProcess
from runner.worker.recalls import Recalls
from runner.worker.settlement import CHANNEL_LOST, Cause, End, Settlement, settle
from runner.worker.upward import Upward
from runner.worker.verdict import Verdict

log = logging.getLogger(__name__)

#: From a closed channel to the kill; how long one that unloads, or could not load, may take to exit.
CHANNEL_GRACE_S, UNLOAD_S, LOAD_FAILED_EXIT_S = 0.1, 5.0, 2.0
_NOTE, _ENDED = 23, 24


class Supervisor:
    """Its executor is loading, then takes attempts, then is closing (`Ending`), then dead."""

    def __init__(
        self,
        order: Load,
        config: WorkerConfig,
        up: Upward,
        loop: asyncio.AbstractEventLoop,
        launch: Callable[[Mapping[str, str], str], ExecutorProcess],
    ) -> None:
        """`launch(env, marker)` starts a process."""
        self.order, self.number = order, order.executor
        self._config, self._up, self._loop, self._launch = config, up, loop, launch
        options = order.handler.options
        self.line = Line(is_batched=options.batch is not None, slots=options.slots)
        self.marker = f"{config.name}/{order.executor}"
        #: None where it could not be started.
        self.process: ExecutorProcess | None = None
        #: Memory it uses now and what it allocated on a simulated device, as last seen.
        self.usage_bytes = self.allocated_bytes = 0
        self.is_dead = self.is_loaded = self.is_stopping = False
        self._recalls = Recalls()
        self._load_s: float | None = None

    def start(self) -> None:
        """Start the process; one that can't be started is told as gone in the next turn of the loop."""
        config = self._config
        self._born_mono = time.monotonic()
        self._oom_kills = tree.oom_kills()
        env = {**config.executor_env, **self.order.env}
        try:
            self.process = process = self._launch(env, self.marker)
        except OSError as error:
            self._loop.call_soon(self._bury_unborn, f"the executor could not be started: {error}")
            return
        self.leftovers = Leftovers(process.pid, self.marker, self._up.spared)
        self._growth = Growth(self.order, config.device_kind)
        self._ending = Ending(
            process,
            recall=lambda: self._recall(ordered=True),
            wake_at=self._up.wake_at,
            before_kill=lambda: self.leftovers.remember(tree.descendants(process.pid)),
            on_stuck=lambda: self._bury(process, Verdict(None, None), is_stuck=True),
        )
        self._oversight = Oversight(process, self.line, self._ending, self._up.keep)
        self._captured = Captured(
            process, self.line, limits=config, send=self._up.keep, complete=self._complete
        )
        process.attach(
            self._loop,
            on_channel=lambda: self._on_channel(process),
            on_output=self._captured.read,
            on_exit=lambda: self._on_exit(process),
        )
        process.send([report.configure(self.order, config)])
        if self.order.load_timeout_s is not None:
            self._up.wake_at(self._born_mono + self.order.load_timeout_s)

    @property
    def is_open(self) -> bool:
        """Whether it takes orders."""
        return self.process is not None and not self.is_dead and not self._ending.is_closing

    def run(self, message: bytes, order: Run) -> None:
        """Hand attempts over; `message` is the encoded order."""
        if self.process is not None and (not self.is_open or self.is_stopping):
            self.line.not_started += [(attempt.job_id, attempt.attempt) for attempt in order.attempts]
            return
        fresh = self.line.hand_over(order.attempts)
        if not self.is_loaded and fresh and self.line.entries[0] is fresh[0]:
            fresh[0].is_first = True
        if self.process is not None:
            self.process.send([message])
            self._up.wake_at(time.monotonic() + START_TOLD_S)

    def cancel(self, order: Cancel) -> None:
        """End one attempt; one that has finished keeps its result, which is on the way."""
        entry = self.line.find((order.job_id, order.attempt))
        if entry is None or self.process is None or self.is_dead:
            return
        if not self.is_loaded and entry is self.line.entries[0] and not self._oversight.spared(entry):
            self.kill(Cause(order.code, order.message))
            return
        figures, ordinal = self.process.figures(), self.line.ordinal(entry)
        if figures.started < ordinal:
            self._recalls.cancel(order)
            self._recall(ordered=False)
        elif figures.finished < ordinal or self.line.slots > 1:
            self._oversight.end(entry, order)

    def recall(self) -> None:
        """Ask for what has not started; the answer goes up."""
        if self.is_open:
            self._recall(ordered=True)

    def unload(self) -> None:
        """End it while it is idle."""
        if not self.is_loaded:
            self.kill(Cause("unloaded", "it was unloaded while it loaded"))
        elif self.process is not None and self.is_open and not self.line.entries:
            self._ending.close(Cause("unloaded", "it was unloaded"), UNLOAD_S)
            self.process.send([wire.encode(wire.Unload(self.number))])

    def kill(self, cause: Cause, *, loading: bool = False) -> None:
        """SIGKILL to all of it (`loading`: unless an attempt has begun); its attempt ends with this cause."""
        if self.process and not self.is_dead and not (loading and self.process.figures().started):
            self._ending.kill(cause)

    def answer(self, message: bytes) -> None:
        """Pass on what the coordinator has to say to the executor."""
        if self.process is not None and not self.is_dead:
            self.process.send([message])

    def stop(self) -> None:
        """The server ends: what runs is interrupted, what waits is given back, then it is unloaded."""
        self.is_stopping = True
        if not self.is_loaded:
            self.kill(Cause("interrupted", STOPPING))
        elif self.is_open and self.line.entries:
            self._recall(ordered=True)
            self._up.wake_at(time.monotonic())
        else:
            self.unload()

    def pause(self, paused: bool) -> None:
        """Too much is unacknowledged: let the executor wait in its own send."""
        if self.process is not None and not self.is_dead:
            self.process.read_channel(not paused)

    def tick(self, now: float) -> float | None:
        """Do what is due; the next moment at which something may be."""
        if self.process is None or self.is_dead:
            return None
        if self._captured.release_at is not None:
            self._captured.release(now)
        clock_at = self._check_clocks(self.process, now) if self.is_open else None
        self._ending.tick(now)
        due = (self._captured.release_at, clock_at, self._ending.next_at)
        return min((at for at in due if at is not None), default=None)

    def drain(self) -> None:
        """Take all that a dead executor has sent, even where the window is full, and what it held back."""
        if self.process is None or self.is_dead:
            return
        while self._take_frames(self.process)[0]:
            pass
        self._take_frames(self.process, held=True)
        for name in list(self.process.outs):
            self._captured.read(name)

    def finish(self, until_mono: float) -> None:
        """Wait for the death of a killed executor and tell how its attempts ended, without the loop."""
        if (process := self.process) is not None and not self.is_dead:
            while (status := process.reap()) is None and time.monotonic() < until_mono:
                time.sleep(0.002)
            self.drain()
            self._bury(process, verdict.of_status(status or 0, oom_kills=0))

    def saw_usage(self, nbytes: int) -> None:
        """The memory that it uses now."""
        self.usage_bytes = nbytes
        if self.process is not None and not self.is_dead:
            for entry in self.line.running(self.process.figures()):
                entry.peak_bytes = max(nbytes, entry.peak_bytes or 0)

    def _recall(self, *, ordered: bool) -> None:
        if self.process is not None:
            self._recalls.ask(ordered=ordered)
            self.process.send([wire.encode(wire.Recall(self.number))])

    def _check_clocks(self, process: ExecutorProcess, now: float) -> float | None:
        """Heed the load clock, or those of what runs; when to look again."""
        if not self.is_loaded:
            limit_s = self.order.load_timeout_s
            if limit_s is not None and now >= self._born_mono + limit_s:
                self.kill(Cause("load_timeout", f"it took longer to load than its {limit_s:g} s"))
            return self._born_mono + limit_s if limit_s is not None and self.is_open else None
        return self._oversight.check(now, is_stopping=self.is_stopping)

    def _on_channel(self, process: ExecutorProcess) -> None:
        if self._take_frames(process)[1] and not self.is_dead:
            process.read_channel(False)
            if not self._ending.is_closing:  # guard: closed-channel
                self._loop.call_later(CHANNEL_GRACE_S, self.kill, CHANNEL_LOST)

    def _take_frames(self, process: ExecutorProcess, *, held: bool = False) -> tuple[bool, bool]:
        """Whether anything came, and whether the other end is closed."""
        try:
            frames, is_closed = process.held() if held else process.receive()
            for frame in frames:
                for message in framing.unpack(frame):
                    self._take(process, message)
        except wire.UNDECODABLE as error:
            log.error("executor %s sent what is no message: %s", self.marker, error)
            process.read_channel(False)
            if not held:
                self.kill(Cause("worker_crashed", f"its executor sent no message: {error}", died=True))
            return False, False
        return bool(frames), is_closed

    def _take(self, process: ExecutorProcess, message: bytes) -> None:
        tag = wire.tag_of(message)
        if tag not in (_NOTE, _ENDED):
            self._take_rare(process, message, wire.from_executor_decoder.decode(message))
            return
        head = report.envelope_decoder.decode(message)
        entry = self.line.find((head.job_id, head.attempt))
        if entry is None:
            log.debug("executor %s told twice of an attempt, or of none of its own", self.marker)
        elif tag == _NOTE:
            entry.notes.append(message)
            self._up.keep(report.note(entry, message, head.seq))
        else:
            self._on_ended(entry, message)

    def _take_rare(self, process: ExecutorProcess, encoded: bytes, message: wire.FromExecutor) -> None:
        match message:
            case wire.Begun():
                entry = self.line.find((message.job_id, message.attempt))
                if entry is not None:
                    entry.begun_mono, entry.place = message.at_mono, message.place
                    self._up.wake_at(message.at_mono + START_TOLD_S)
            case Marked():
                entry = self.line.find((message.job_id, message.attempt))
                if entry is not None:
                    self._captured.mark(entry, message)
            case Loaded():
                self._on_loaded(process, message)
            case LoadFailed():
                cause = Cause(message.code, message.message, message.detail)
                self._ending.close(cause, LOAD_FAILED_EXIT_S)
            case Recalled():
                self._on_recalled(message)
            case Allocated():
                self.allocated_bytes = message.nbytes
                self._up.allocated(self.number)
            case wire.Call():
                self._up.call(message, encoded)

    def _on_loaded(self, process: ExecutorProcess, message: Loaded) -> None:
        self.is_loaded = True
        self._load_s = message.load_s
        if self._config.device_kind == "sim":
            message.resident_bytes = self.allocated_bytes
        elif self._config.device_kind == "cpu":
            message.resident_bytes = tree.resident_bytes(process.pid)
        self._up.keep(wire.encode(message))
        if self.line.entries:
            for entry in self.line.beside(self.line.entries[0]):
                self._oversight.tell_start(entry, time.time())
        self._up.wake_at(time.monotonic() + START_TOLD_S)

    def _on_recalled(self, message: Recalled) -> None:
        outcome = self._recalls.answered([(job, attempt) for job, attempt in message.attempts], self.line)
        for entry, order in outcome.cancelled:
            # It was taken out of the line of an executor that goes on.
            end = End(entry, order.code, order.message)
            self._up.keep(report.own_end(end, time.time(), leaves=not self.is_open))
        for entry, order in outcome.started:
            self._oversight.end(entry, order)
        back = outcome.returned
        if outcome.was_ordered or not self.is_open or self.is_stopping:
            self._up.keep(wire.encode(Recalled(self.number, [entry.key for entry in back])))
        elif back and self.process is not None:
            self.line.entries.extend(back)
            for _, together in groupby(back, key=lambda entry: id(entry.mates) if entry.mates else 0):
                run = Run(self.number, [entry.attempt for entry in together])
                self.process.send([wire.encode(run)])

    def _on_ended(self, entry: Entry, message: bytes) -> None:
        now = time.monotonic()
        self._captured.end(entry, message, now)
        if self.line.entries:
            self._up.wake_at(now + START_TOLD_S)
        elif self.is_stopping:
            self.unload()

    def _complete(self, entry: Entry, message: bytes) -> bytes:
        """The `Ended` as it goes up, with what only the worker knows."""
        assert self.process is not None
        ladder = self._ending.ended(entry.key)
        amendment = report.Amendment(
            cause=None if ladder is None else (ladder.code, ladder.message),
            shared=ladder is not None and ladder.is_shared,
            load_s=self._load_s if entry.is_first else None,
            peak_bytes=max(entry.peak_bytes or 0, self.allocated_bytes) or None,
            leaves=self._ending.is_closing,
            grown=self._growth.is_too_much(self.process.pid, self.allocated_bytes),
        )
        return report.ended(entry, message, amendment)

    def _on_exit(self, process: ExecutorProcess) -> None:
        # Its group may be signalled only as long as the leader is not reaped: the pid is ours until then.
        process.signal_group(signal.SIGKILL)
        self.drain()
        status = process.reap()  # guard: wait-status
        if status is not None:
            self._bury(process, verdict.of_status(status, oom_kills=tree.oom_kills() - self._oom_kills))

    def _bury(self, process: ExecutorProcess, death: Verdict, *, is_stuck: bool = False) -> None:
        """Tell how each of its attempts ended, then clear up and tell that it is gone."""
        self._captured.close()
        figures = process.figures()
        words = report.last_words(self.line.last_started(figures), self._captured.stderr_tail)
        settlement = settle(
            self.line,
            figures,
            was_loading=not self.is_loaded,
            ladders=self._ending.ladders,
            cause=self._ending.cause,
            verdict=death,
            stderr_tail=words,
        )
        self.is_dead = True
        run_s = time.monotonic() - figures.started_mono if self.is_loaded and figures.started else None
        waited_s = self._load_s or time.monotonic() - self._born_mono
        for end in settlement.ends:
            self._up.keep(report.own_end(end, time.time(), run_s, waited_s if end.entry.is_first else None))
        self.line.not_started = settlement.not_started + self.line.not_started
        self.line.entries.clear()
        process.close()
        if is_stuck:
            self._on_clear(False, settlement)
        else:
            self.leftovers.clear(
                self._loop,
                is_alone=lambda: self._up.is_alone(self.number),
                done=lambda is_clear: self._on_clear(is_clear, settlement),
            )

    def _bury_unborn(self, message: str) -> None:
        for entry in self.line.entries[:1]:
            self._up.keep(report.own_end(End(entry, "worker_crashed", message), time.time()))
        self.line.not_started += [entry.key for entry in self.line.entries[1:]]
        self.is_dead = True
        self._tell_gone("worker_crashed", message)

    def _on_clear(self, is_clear: bool, settlement: Settlement) -> None:
        if is_clear:
            self._tell_gone(settlement.code, settlement.message, settlement.detail)
            return
        log.error("executor %s does not die of SIGKILL; it is written off", self.marker)
        self._tell_gone(STUCK, "a process of the executor does not die of SIGKILL")
        cleared = wire.encode(Gone(self.number, "cleared", "what did not die is gone"))
        self.leftovers.outlast(self._loop, lambda: self._up.keep(cleared))

    def _tell_gone(self, code: str, message: str, detail: Any = None) -> None:
        self._up.keep(wire.encode(Gone(self.number, code, message, self.line.not_started, detail)))
        self._up.gone(self.number)

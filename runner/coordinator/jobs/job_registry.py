"""Effect: the live jobs in memory: every job that has not ended, or whose end is not durable yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from gpu.job_class import JobClass
from runner.coordinator.jobs.job_phases import (
    ADOPTABLE,
    PREDECESSORS,
    FirstPhase,
    IllegalTransition,
    JobPhase,
)
from runner.coordinator.jobs.queued_names import DEFAULT_LIMITS, NameLimits, QueuedNames
from runner.coordinator.jobs.usage_meter import UsageMeter
from runner.jobs.job import Job, State

_BEFORE_WAITING = PREDECESSORS["waiting"]
_BEFORE_BEHIND = PREDECESSORS["behind"]
_BEFORE_DELAYED = PREDECESSORS["delayed"]
_BEFORE_SPILLED = PREDECESSORS["spilled"]
_BEFORE_ASSIGNED = PREDECESSORS["assigned"]
_BEFORE_STAGED = PREDECESSORS["staged"]
_BEFORE_STARTING = PREDECESSORS["starting"]
_BEFORE_RUNNING = PREDECESSORS["running"]
_BEFORE_ENDED = PREDECESSORS["ended"]


class LiveJob:
    """A job that has not ended, or whose end is not durable yet.

    Only its own methods assign its attributes. Those named `mark_PHASE` raise `IllegalTransition`, and change
    nothing, if the job may not enter that phase from its current one.
    """

    __slots__ = (
        "attempt_in_flight",
        "end_callbacks",
        "executor",
        "first_start_seq",
        "has_unused_attempt",
        "input",
        "job",
        "job_class",
        "meter_start",
        "output",
        "phase",
        "previous_started_at",
        "running_since_mono",
    )

    def __init__(self, job: Job, input_: bytes | None, phase: FirstPhase) -> None:
        self.job = job
        #: JSON text; None if it has to be read from the store.
        self.input = input_
        #: JSON text, from the end of the job until its commit.
        self.output: bytes | None = None
        self.phase: JobPhase = phase
        #: Its class in the planner's state; None until its handler is known.
        self.job_class: JobClass | None = None
        #: The executor that holds the attempt in flight.
        self.executor: int | None = None
        #: The attempt in flight; 0: none. A staged one is not yet counted in `job.attempt`.
        self.attempt_in_flight = 0
        #: `job.attempt` was counted ahead and never started: the next start takes this number.
        self.has_unused_attempt = False
        #: `job.started_at` before that attempt was counted, in case the attempt never started.
        self.previous_started_at: float | None = None
        #: When user code of the attempt in flight was reported to run; on the monotonic clock of timeouts.
        self.running_since_mono = 0.0
        #: Number of the event of the first attempt's start; 0: none since the job is in memory.
        self.first_start_seq = 0
        #: While an attempt occupies devices: the meter of its executor, and the meter's reading at the start.
        self.meter_start: tuple[UsageMeter, float] | None = None
        #: Called once, after the commit that holds the job's end.
        self.end_callbacks: list[Callable[[LiveJob], None]] | None = None

    # Phases. The checks are written out: thousands of jobs per second pass through each of them.

    def mark_waiting(self, job_class: JobClass) -> None:
        """Enter the planner's state, in this class."""
        if self.phase not in _BEFORE_WAITING:
            raise IllegalTransition(self.job.id, self.phase, "waiting")
        self.phase = "waiting"
        self.job_class = job_class

    def mark_behind(self) -> None:
        """Wait behind the window of the job's class, or for its handler."""
        if self.phase not in _BEFORE_BEHIND:
            raise IllegalTransition(self.job.id, self.phase, "behind")
        self.phase = "behind"

    def mark_delayed(self) -> None:
        """Wait until `job.ready_at`."""
        if self.phase not in _BEFORE_DELAYED:
            raise IllegalTransition(self.job.id, self.phase, "delayed")
        self.phase = "delayed"

    def mark_spilled(self) -> None:
        """Leave memory; the store and the queue keep the job."""
        if self.phase not in _BEFORE_SPILLED:
            raise IllegalTransition(self.job.id, self.phase, "spilled")
        self.phase = "spilled"

    def mark_assigned(self, executor: int) -> None:
        """Assign the next attempt to this executor: from now on the attempt is in flight."""
        if self.phase not in _BEFORE_ASSIGNED:
            raise IllegalTransition(self.job.id, self.phase, "assigned")
        self.phase = "assigned"
        self.executor = executor
        self.attempt_in_flight = self.job.attempt + (not self.has_unused_attempt)

    def mark_staged(self) -> None:
        """Note that the attempt was sent to an executor that is busy."""
        if self.phase not in _BEFORE_STAGED:
            raise IllegalTransition(self.job.id, self.phase, "staged")
        self.phase = "staged"

    def mark_starting(self) -> None:
        """Note that the attempt in flight has started with a load: `job.started_at` is still the last one."""
        if self.phase not in _BEFORE_STARTING:
            raise IllegalTransition(self.job.id, self.phase, "starting")
        self.phase = "starting"
        self.previous_started_at = self.job.started_at
        self.has_unused_attempt = False

    def mark_running(self, now_mono: float) -> None:
        """Note that user code runs. An attempt that was not `starting` starts now, as in `mark_starting`."""
        if self.phase not in _BEFORE_RUNNING:
            raise IllegalTransition(self.job.id, self.phase, "running")
        if self.phase != "starting":
            self.previous_started_at = self.job.started_at
            self.has_unused_attempt = False
        self.phase = "running"
        self.running_since_mono = now_mono

    def record_first_start(self, seq: int) -> None:
        """Record the number of the event of the first attempt's start."""
        self.first_start_seq = seq

    def mark_ended(self, output: bytes | None = None) -> None:
        """End the job; `output` is the JSON text of a job that has succeeded."""
        if self.phase not in _BEFORE_ENDED:
            raise IllegalTransition(self.job.id, self.phase, "ended")
        self.phase = "ended"
        self.output = output

    # The attempt in flight.

    def adopt_attempt(self, attempt: int) -> None:
        """Adopt an attempt that the last coordinator sent; no executor holds it any more. Unless the store
        holds it as running, its start is yet to be recorded."""
        if self.phase not in ADOPTABLE:
            raise IllegalTransition(self.job.id, self.phase, "assigned")
        if attempt != self.job.attempt:
            self.phase = "assigned"
        self.attempt_in_flight = attempt

    def clear_attempt(self, *, is_unused: bool = False) -> None:
        """Clear the attempt in flight, which has ended or was returned. `is_unused`: it was counted in
        `job.attempt` and did not start, so the next start takes its number."""
        self.executor = None
        self.attempt_in_flight = 0
        if is_unused:
            self.has_unused_attempt = True

    def start_meter(self, meter: UsageMeter, at: float) -> None:
        """Measure the attempt in flight from `at` on, with the meter of its executor."""
        self.meter_start = meter, meter.start_attempt(at)

    def stop_meter(self, at: float) -> float | None:
        """End the measurement; return the attempt's seconds, None if it was not measured."""
        if self.meter_start is None:
            return None
        (meter, start_reading_s), self.meter_start = self.meter_start, None
        return meter.end_attempt(at, start_reading_s)

    # Input and callbacks.

    def keep_input(self, text: bytes) -> None:
        """Keep the input in memory."""
        self.input = text

    def drop_input(self) -> None:
        """Drop the input from memory: the store holds it, or nothing needs it."""
        self.input = None

    def add_end_callback(self, callback: Callable[[LiveJob], None]) -> None:
        """Call `callback` once, after the commit that holds the job's end."""
        if self.end_callbacks is None:
            self.end_callbacks = []
        self.end_callbacks.append(callback)

    def remove_end_callback(self, callback: Callable[[LiveJob], None]) -> None:
        """Remove a callback if it has not been taken yet."""
        if self.end_callbacks is not None and callback in self.end_callbacks:
            self.end_callbacks.remove(callback)

    def take_end_callbacks(self) -> list[Callable[[LiveJob], None]]:
        """Remove and return the callbacks."""
        callbacks, self.end_callbacks = self.end_callbacks or [], None
        return callbacks


class JobRegistry:
    """Live jobs by id and by number, and the number of jobs of each queue in each state."""

    def __init__(
        self,
        last_number: int,
        counts: dict[tuple[str, str], int],
        name_limits: NameLimits = DEFAULT_LIMITS,
    ) -> None:
        self._last_number = last_number
        self.by_id: dict[str, LiveJob] = {}
        self.by_number: dict[int, LiveJob] = {}
        #: (queue, state) -> number of jobs, with those that have ended in the store.
        self.counts: Counter[tuple[str, str]] = Counter(counts)
        #: Queue -> the largest number of its jobs that ran at once since the start.
        self.peak_running: Counter[str] = Counter()
        #: Queued jobs of all queues.
        self.queued_count = sum(count for (_, state), count in counts.items() if state == "queued")
        self.names = QueuedNames({queue for queue, _ in counts}, name_limits)

    def next_number(self) -> int:
        """Return the number of the next job."""
        self._last_number += 1
        return self._last_number

    def __len__(self) -> int:
        return len(self.by_number)

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(self.by_number.values())

    def add(self, live: LiveJob, *, is_counted: bool = False) -> None:
        """Add a live job; `is_counted` if the store's counts include it already."""
        job = live.job
        self.by_id[job.id] = live
        self.by_number[job.number] = live
        if not is_counted:
            self.counts[job.queue, job.state] += 1
            if job.state == "queued":
                self.queued_count += 1
                self.names.add_queued(job)

    def set_state(self, job: Job, state: State) -> None:
        """Change a job's state and the counts."""
        self.counts[job.queue, job.state] -= 1
        self.counts[job.queue, state] += 1
        if job.state == "queued":
            self.queued_count -= 1
            self.names.remove_queued(job)
        if state == "queued":
            self.queued_count += 1
            self.names.add_queued(job)
        job.state = state
        if state == "running":
            running = self.counts[job.queue, "running"]
            if running > self.peak_running[job.queue]:
                self.peak_running[job.queue] = running

    def remove(self, live: LiveJob) -> None:
        """Remove a job whose end is durable: from now on it is read from the store."""
        self.by_id.pop(live.job.id, None)
        self.by_number.pop(live.job.number, None)

    def uncount_stored(self, queue: str, state: str) -> None:
        """Uncount a job of which only these columns are known, if it was counted."""
        if self.counts[queue, state] > 0:
            self.counts[queue, state] -= 1
            self.queued_count -= state == "queued"

    def uncount(self, job: Job) -> None:
        """Uncount a stored job that was deleted, or is about to be added as a live one again."""
        self.counts[job.queue, job.state] -= 1
        if job.state == "queued":
            self.queued_count -= 1
            self.names.remove_queued(job)

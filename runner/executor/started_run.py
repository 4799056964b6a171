"""Effect: collects the outcome of a run that has begun, as an `AttemptEnded` for each of its attempts."""

from __future__ import annotations

from collections.abc import Sequence

from runner.executor import failures
from runner.executor.active_run import ActiveRun
from runner.executor.attempt_run import AttemptRun
from runner.protocol import worker as worker_protocol


class StartedRun:
    """Created by `AttemptRunner.begin`, completed and sent by `AttemptRunner.finish`.

    An attempt succeeds unless a failure was written; its output is set in its `AttemptEnded`.
    """

    __slots__ = ("begin_ns", "endings", "is_fatal", "is_out_of_memory", "run")

    def __init__(self, run: ActiveRun, *, started_at: float, begin_ns: int) -> None:
        """Give every attempt of the run the same start.

        `started_at`: UTC epoch seconds; `begin_ns`: the same moment as monotonic nanoseconds.
        """
        self.run = run
        self.begin_ns = begin_ns
        run.started_at = started_at
        #: By key, in the order of `run.items`.
        self.endings: dict[tuple[str, int], worker_protocol.AttemptEnded] = {}
        for item in run.items:
            item.started_at = started_at
            self.endings[item.key] = worker_protocol.AttemptEnded(
                item.job_id, item.number, 0, None, started_at=started_at, batch_size=len(run.items)
            )
        #: The process must not run another attempt.
        self.is_fatal = False
        #: A device ran out of memory: blocks that torch caches must be returned before the next attempt.
        self.is_out_of_memory = False

    def write_failure(self, error: BaseException, attempts: Sequence[AttemptRun]) -> None:
        """Fail these attempts with one exception of user code, and clear the frames it references.

        The attempt to blame is unknown where the exception fails more than one.
        """
        found = failures.classify(error)
        failures.clear_frames(error)
        self.is_fatal = self.is_fatal or found.is_fatal
        self.is_out_of_memory = self.is_out_of_memory or found.code == "device_out_of_memory"
        for attempt in attempts:
            ended = self.endings[attempt.key]
            ended.code, ended.message, ended.detail = found.code, found.message, found.detail
            ended.retryable, ended.retry_at = found.retryable, found.retry_at
            ended.is_blame_unknown = len(attempts) > 1

"""Pure: failed loads of executors without a job, and the back-off of preloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.coordinator.dispatch.prewarm_request import ModelRef, PrewarmFailure
from runner.formats.timestamps import format_rfc3339
from runner.handlers.spec import HandlerSpec

#: A failed preload is retried after 5 s, then after twice as long each time, up to 10 minutes.
RETRY_S, RETRY_MAX_S = 5.0, 600.0
#: After this many seconds in the ready state, earlier failures no longer count.
STABLE_S = 60.0
#: Error codes that the executor itself caused, unlike the loss of its worker or a reload of its handler.
EXECUTOR_FAULTS = frozenset(
    {
        "load_error",
        "load_timeout",
        "device_out_of_memory",
        "memory_exceeded",
        "worker_crashed",
        "stuck_process",
    }
)


class LoadFailures:
    """The last failure of each handler and model, until it is loaded or its handler changes."""

    def __init__(self) -> None:
        #: Shown by the API.
        self.last: dict[ModelRef, PrewarmFailure] = {}
        #: Failures in a row, and the time at which the last executor was ready.
        self._tries: dict[ModelRef, tuple[int, float | None]] = {}

    def record(self, model_ref: ModelRef, failure: PrewarmFailure, *, is_preload: bool) -> PrewarmFailure:
        """Record a failure; return it with the number of failures in a row, and the time of the next try if
        it is a preload."""
        count, ready_at = self._tries.get(model_ref, (0, None))
        is_stable = ready_at is not None and failure.at - ready_at > STABLE_S
        tries = 1 if is_stable else count + 1
        self._tries[model_ref] = (tries, None)
        next_at = None
        if is_preload:
            next_at = failure.at + min(RETRY_MAX_S, RETRY_S * 2.0 ** min(tries - 1, 16))
        self.last[model_ref] = failure._replace(tries=tries, next_at=next_at)
        return self.last[model_ref]

    def on_loaded(self, model_ref: ModelRef, now: float) -> None:
        """Record that an executor of the model is ready at `now`: the count of failures ends if it stays
        ready for STABLE_S."""
        self.last.pop(model_ref, None)
        if model_ref in self._tries:
            self._tries[model_ref] = (self._tries[model_ref][0], now)

    def may_retry(self, model_ref: ModelRef, now: float) -> bool:
        """Whether a load may be tried now: it has not failed, or its retry is due."""
        failure = self.last.get(model_ref)
        return failure is None or failure.next_at is None or failure.next_at <= now

    def drop_changed(self, before: Mapping[str, HandlerSpec], specs: Mapping[str, HandlerSpec]) -> None:
        """Drop the failures of handlers that have changed since `before`."""
        for model_ref in list(self.last):
            if specs.get(model_ref[0]) != before.get(model_ref[0]):
                del self.last[model_ref]
                self._tries.pop(model_ref, None)

    def build_document(self, handler: str) -> list[dict[str, Any]]:
        """The failures of a handler as the API shows them."""
        return [
            {
                "model": model or None,
                "error": failure.error,
                "at": format_rfc3339(failure.at),
                "tries": failure.tries,
                "next_try_at": None if failure.next_at is None else format_rfc3339(failure.next_at),
            }
            for (name, model), failure in self.last.items()
            if name == handler
        ]

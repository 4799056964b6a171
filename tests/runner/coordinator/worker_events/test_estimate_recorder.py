"""What is taken in of loads and ends, and when it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gpu.devices.device import Device, nvidia, sim
from gpu.estimates.estimator import MODELS_MAX
from gpu.estimates.observations import Observations
from gpu.job_class import JobClass
from gpu.planning.oom_escalation import OomCircumstances
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.jobs.attempt_end import AttemptEnd
from runner.coordinator.jobs.job_registry import LiveJob
from runner.coordinator.jobs.statistics import Statistics
from runner.coordinator.queue.timers import Timers
from runner.coordinator.runtime.clock import Clock
from runner.coordinator.worker_events.estimate_recorder import STORE_INTERVAL_S, EstimateRecorder
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source
from runner.jobs.job import Job, JobTerms
from runner.protocol.worker import ExecutorLoaded
from tests.runner.coordinator.lifecycle_harness import ManualClock, RecordedValues

GIB = 1 << 30
CLS = JobClass("q", "h", "v1", "m", 50, None, 1)


class RecordedTimers(Timers):
    """Timers on which the test calls."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_at(self, at: float, callback: Callable[[], None]) -> None:
        self.later.append((at, callback))


class RecorderHarness:
    """The part over a view of its own; what is to come later is called by the test."""

    def __init__(
        self,
        kept: dict[str, bytes] | None = None,
        gpus: int = 1,
        make: Callable[[int, int], Device] = sim,
    ) -> None:
        values = RecordedValues(kept)
        self.written = values.written
        self.clock = ManualClock()
        timers = RecordedTimers(self.clock)
        self.later = timers.later
        self.scheduler_state = SchedulerState([make(0, 24 * GIB), make(1, 24 * GIB)])
        self.ids = [device.id for device in self.scheduler_state.ledger.devices][: max(1, gpus)]
        self.scheduler_state.ledger.reserve(self.ids, 1, 8 * GIB)
        self.figures = Statistics()
        self.estimate_recorder = EstimateRecorder(
            scheduler_state=self.scheduler_state,
            statistics=self.figures,
            timers=timers,
            clock=self.clock,
            values=values,
        )
        self.spec = HandlerSpec("h", "v1", "ok", Source("file", "/h.py", "h"), HandlerOptions(gpus=gpus))
        self.post = self.another()

    def another(self) -> ExecutorHandle:
        nobody: Any = None
        return ExecutorHandle(1, nobody, self.spec, "m", self.ids, 8 * GIB)

    def end(
        self,
        code: str | None = None,
        *,
        cls: JobClass | None = CLS,
        squeeze: OomCircumstances | None = None,
        **fields: Any,
    ) -> None:
        live = LiveJob(Job(1, "id", "h", "q", 50, 0.0, JobTerms(), 2), None, "waiting")
        if cls is not None:
            live.mark_waiting(cls)
        self.estimate_recorder.on_attempt_ended(self.post, live, AttemptEnd("id", 1, code, **fields), squeeze)

    @property
    def known(self) -> Observations:
        ((_, model),) = self.scheduler_state.estimator.models("h")
        return model.whole


def test_what_a_gang_took_is_shared_out_over_its_devices() -> None:
    harness = RecorderHarness(gpus=2)
    harness.scheduler_state.ledger.usage.record_total(1, 3 * GIB)
    harness.estimate_recorder.on_loaded(harness.post, ExecutorLoaded(1, 2.0, 3 * GIB))
    harness.end(peak_bytes=5 * GIB, run_s=1.0)
    assert harness.scheduler_state.estimator.resident_bytes(CLS.key) == 3 * GIB // 2
    assert harness.scheduler_state.estimator.load_s(CLS.key) == 2.0
    assert harness.known.peak_bytes == 5 * GIB // 2


def test_of_a_gpu_each_device_is_told_by_itself() -> None:
    harness = RecorderHarness(gpus=2, make=lambda index, size: nvidia(index, f"GPU-{index}", "card", size))
    harness.end(peak_bytes=5 * GIB, run_s=1.0)
    assert harness.known.peak_bytes == 5 * GIB


def test_who_was_too_short_to_be_looked_at_took_what_its_executor_holds() -> None:
    harness = RecorderHarness()
    harness.end(run_s=1.0)
    assert harness.known.peak_bytes == 0
    harness.scheduler_state.ledger.usage.record_total(1, 3 * GIB)
    harness.end(run_s=1.0)
    assert harness.known.peak_bytes == 3 * GIB


def test_of_short_jobs_only_some_are_learned_from_and_each_that_took_more() -> None:
    harness = RecorderHarness()
    for _ in range(32):
        harness.end(peak_bytes=GIB, run_s=0.001)
    assert len(harness.known.run_s) == 4 and len(harness.known.peaks) == 4
    harness.end(peak_bytes=2 * GIB, run_s=0.001)
    assert harness.known.peak_bytes == 2 * GIB
    for _ in range(3):
        harness.end(peak_bytes=GIB, run_s=1.0)
    assert len(harness.known.run_s) == 8


def test_jobs_without_a_gpu_teach_how_long_they_take() -> None:
    harness = RecorderHarness(gpus=0)
    harness.end(peak_bytes=GIB, run_s=1.0)
    assert len(harness.known.run_s) == 1 and not harness.known.peaks


def test_failures_teach_nothing_but_that_memory_ran_out() -> None:
    harness = RecorderHarness()
    harness.end("handler_error", peak_bytes=GIB, run_s=1.0)
    harness.end(cls=None, peak_bytes=GIB, run_s=1.0)
    squeeze = OomCircumstances(("sim0",), 8 * GIB, False, 24 * GIB, 0, [])
    harness.end("memory_exceeded", cls=None, squeeze=squeeze)
    # It was beside others: they may have taken what it was granted.
    harness.end("device_out_of_memory", squeeze=squeeze)
    assert list(harness.scheduler_state.estimator.models("h")) == [] and harness.later == []
    harness.end("memory_exceeded", squeeze=squeeze)
    assert (harness.known.oom_minimum_bytes, harness.known.out_of_memory) == (10 * GIB, 1)
    harness.end("device_out_of_memory", squeeze=replace(squeeze, was_alone=True, grant_bytes=10 * GIB))
    assert (harness.known.oom_minimum_bytes, harness.known.out_of_memory) == (12.5 * GIB, 2)
    # That it had all there is says nothing of others.
    harness.end("memory_exceeded", squeeze=replace(squeeze, grant_bytes=24 * GIB))
    assert (harness.known.oom_minimum_bytes, harness.known.out_of_memory) == (12.5 * GIB, 3)
    harness.end("memory_exceeded", squeeze=replace(squeeze, grant_bytes=16 * GIB, largest_bytes=None))
    assert (harness.known.oom_minimum_bytes, harness.known.out_of_memory) == (20 * GIB, 4)


def test_what_is_new_is_written_once_in_a_while_and_known_again() -> None:
    harness = RecorderHarness()
    for _ in range(5):
        harness.end(peak_bytes=GIB, run_s=1.0)
    ((at, write),) = harness.later
    assert at == harness.clock.at + STORE_INTERVAL_S and harness.written == []
    write()
    ((name, value),) = harness.written
    assert name == "learned/models/h/m" and value is not None
    harness.estimate_recorder.store_changes()
    assert len(harness.written) == 1
    harness.end(peak_bytes=GIB, run_s=1.0)
    assert len(harness.later) == 2
    again = RecorderHarness({name: value})
    assert again.known.peak_bytes == GIB and len(again.known.run_s) == 5
    again.estimate_recorder.store_changes()
    assert again.written == []


def test_what_was_forgotten_is_taken_out_of_the_store() -> None:
    harness = RecorderHarness()
    for n in range(MODELS_MAX + 1):
        harness.end(cls=replace(CLS, model=str(n)), run_s=1.0)
    harness.estimate_recorder.store_changes()
    written = dict(harness.written)
    assert written["learned/models/h/0"] is None and len(written) == MODELS_MAX + 1


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", msgspec.msgpack.encode([1]), msgspec.msgpack.encode({"form": 99})]
)
def test_what_can_not_be_read_is_learned_anew(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    harness = RecorderHarness({"learned/models/h/m": value, "queue/q/paused": b"true"})
    assert list(harness.scheduler_state.estimator.models("h")) == []
    assert "learned/models/h/m can't be read" in caplog.text
    harness.estimate_recorder.store_changes()
    assert harness.written == [("learned/models/h/m", None)]


def test_peaks_of_an_older_version_are_taken_over() -> None:
    harness = RecorderHarness({"learned/peaks": msgspec.json.encode({"h": {"": 4 * GIB}})})
    assert harness.known.peak_bytes == 4 * GIB
    harness.estimate_recorder.store_changes()
    assert [name for name, _ in harness.written] == ["learned/peaks", "learned/models/h/"]
    assert dict(harness.written)["learned/peaks"] is None

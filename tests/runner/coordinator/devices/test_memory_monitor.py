"""Effect: whose the bytes of a GPU are, told by fixed readings and by what executors say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gpu.devices.device import nvidia
from gpu.job_class import JobClass
from gpu.memory.enforcement import BACKENDS, MARGIN_BYTES, BackendName
from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.devices.memory_monitor import MemoryMonitor
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.runtime import value_names
from runner.handlers.spec import HandlerOptions, HandlerSpec, Source
from runner.protocol.worker import AttemptEnded, DeviceReadings, ExecutorLoaded, ExecutorProcesses
from tests.runner.coordinator.lifecycle_harness import ManualClock, RecordedValues

G, M = 1 << 30, 1 << 20
CARD = nvidia(0, "GPU-0", "card", 24 * G)
CONTEXT = 300 * M
SPEC = HandlerSpec("h", "v", "ok", Source("file", "/h.py", "h"), HandlerOptions(gpus=1))


class MemoryScenario:
    """One card, executors that are granted 8 GiB each, and a clock."""

    def __init__(self, enforcement: BackendName = "fraction") -> None:
        self.clock = ManualClock()
        self.values = RecordedValues()
        self.scheduler_state = SchedulerState([CARD])
        self.memory = MemoryMonitor(
            scheduler_state=self.scheduler_state,
            backend=BACKENDS[enforcement],
            values=self.values,
            clock=self.clock,
        )
        self.memory.driver = "570"
        self.posts: dict[int, ExecutorHandle] = {}

    def start(self, executor: int, pid: int | None = None) -> ExecutorHandle:
        cls = JobClass("default", f"h{executor}", "v", "", 50, 8 * G, 1)
        self.scheduler_state.add_waiting(cls, executor)
        self.scheduler_state.load(executor, cls, executor, ("gpu0",), 8 * G)
        if pid is not None:
            self.memory.claim_processes(ExecutorProcesses(executor, [pid]))
        nobody: Any = None
        post = ExecutorHandle(executor, nobody, SPEC, "", ["gpu0"], 8 * G)
        self.posts[executor] = post
        return post

    def loaded(self, executor: int, reserved: int | None, torch: str | None = "2.13") -> None:
        self.scheduler_state.on_loaded(executor, None, self.clock.at)
        self.memory.on_loaded(self.posts[executor], ExecutorLoaded(executor, 1.0, None, reserved, torch))

    def ended(self, executor: int, peak: int | None, reserved: int | None) -> int | None:
        message = AttemptEnded("j", 1, 1, None, peak_bytes=peak, reserved_bytes=reserved)
        peak_bytes = self.memory.on_attempt_ended(self.posts[executor], message)
        cls = self.scheduler_state.executors[executor].assigned[executor]
        self.scheduler_state.on_attempt_ended(executor, cls, executor, self.clock.at)
        assert message.peak_bytes == peak
        return peak_bytes

    def read(self, used: int, *processes: tuple[int, int | None], times: int = 1) -> bool:
        listed = [("gpu0", pid, nbytes) for pid, nbytes in processes]
        has_more = False
        for _ in range(times):
            self.clock.at += 0.25
            has_more = self.memory.on_readings(
                DeviceReadings([("gpu0", 24 * G, used, 24 * G - used)], listed)
            )
        return has_more

    @property
    def context(self) -> int | None:
        return self.memory.context_bytes("gpu0")


def test_the_context_is_what_an_idle_one_holds_beyond_torchs_segments() -> None:
    scenario = MemoryScenario()
    scenario.read(0)
    scenario.start(1, pid=10)
    scenario.loaded(1, 1 * G)
    scenario.read(1 * G + CONTEXT, (10, 1 * G + CONTEXT), times=3)
    assert scenario.context is None, "it is at work"
    assert scenario.ended(1, 2 * G, 1 * G) == 2 * G
    scenario.read(1 * G + CONTEXT, (10, 1 * G + CONTEXT))
    assert scenario.context is None, "that reading may have begun before"
    scenario.read(1 * G + CONTEXT, (10, 1 * G + CONTEXT))
    assert scenario.context == CONTEXT and scenario.memory.has_new_context
    ((name, value),) = scenario.values.written
    assert name == value_names.CONTEXT_OVERHEAD and value is not None
    assert msgspec.json.decode(value) == {"card/570": {"2.13": CONTEXT}}
    scenario.read(9 * G, (10, 9 * G), times=3)
    assert len(scenario.values.written) == 1


def test_a_peak_is_what_the_driver_saw_or_torch_had_with_its_context() -> None:
    scenario = MemoryScenario()
    scenario.read(0)
    scenario.start(1, pid=10)
    scenario.loaded(1, None, None)
    scenario.read(3 * G, (10, 3 * G))
    scenario.read(1 * G, (10, 1 * G))
    assert scenario.ended(1, None, None) == 3 * G
    contexts = scenario.memory._contexts
    contexts.record("card/570", "2.13", CONTEXT)
    scenario.start(2, pid=20)
    scenario.loaded(2, 1 * G)
    assert scenario.ended(2, 4 * G, 1 * G) == 4 * G + CONTEXT


def test_without_named_processes_the_context_is_told_by_the_total() -> None:
    scenario = MemoryScenario()
    scenario.read(2 * G)
    scenario.start(1)
    scenario.loaded(1, 1 * G)
    scenario.read(3 * G + CONTEXT)
    scenario.ended(1, 1 * G, 1 * G)
    scenario.read(3 * G + CONTEXT, times=2)
    assert (scenario.context, scenario.scheduler_state.ledger.usage.level("gpu0")) == (CONTEXT, "reports")
    assert scenario.scheduler_state.ledger.usage.foreign_bytes("gpu0") == 2 * G + CONTEXT, (
        "until it tells again"
    )


@pytest.mark.parametrize("neighbour", ["loads", "idles", "is known"])
def test_where_only_the_total_is_known_the_difference_tells(neighbour: str) -> None:
    scenario = MemoryScenario()
    scenario.read(2 * G)
    scenario.start(1)
    scenario.loaded(1, None, None)
    scenario.read(5 * G)
    scenario.ended(1, None, None)
    scenario.read(5 * G, times=2)
    usage = scenario.scheduler_state.ledger.usage
    assert (usage.observed_bytes(1), usage.level("gpu0"), usage.foreign_bytes("gpu0")) == (
        3 * G,
        "totals",
        2 * G,
    )
    scenario.start(2)
    assert scenario.scheduler_state.residency.slots["gpu0"].exclusive_executor == 2, "loads go one by one"
    if neighbour == "loads":
        scenario.read(6 * G, times=3)
        assert usage.observed_bytes(2) is None
        return
    scenario.loaded(2, None, None)
    assert scenario.scheduler_state.residency.slots["gpu0"].exclusive_executor is None
    if neighbour == "is known":
        scenario.read(6 * G)
        scenario.ended(2, None, None)
        scenario.read(6 * G, times=2)
        assert usage.observed_bytes(2) == 1 * G


def test_a_cap_leaves_the_context_out_and_none_is_none() -> None:
    scenario = MemoryScenario()
    assert scenario.memory.cap_bytes(["gpu0"], 8 * G, None) == 8 * G - MARGIN_BYTES
    scenario.memory._contexts.record("card/570", "2.13", CONTEXT)
    assert scenario.memory.cap_bytes(["gpu0"], 8 * G, None) == 8 * G - CONTEXT - MARGIN_BYTES
    assert MemoryScenario("watchdog").memory.cap_bytes(["gpu0"], 8 * G, None) is None


def test_what_may_start_anything_is_told() -> None:
    scenario = MemoryScenario()
    assert not scenario.read(4 * G), "there is less than before"
    scenario.clock.at += 60
    assert scenario.read(1 * G)
    assert not scenario.read(1 * G)


def test_bytes_of_a_dead_one_stay_its_own_until_they_are_free() -> None:
    scenario = MemoryScenario()
    scenario.read(0)
    scenario.start(1, pid=10)
    scenario.loaded(1, None, None)
    scenario.read(4 * G, (10, 4 * G))
    scenario.scheduler_state.on_executor_gone(1, scenario.clock.at)
    scenario.read(4 * G, (10, 4 * G), times=3)
    ledger = scenario.scheduler_state.ledger
    assert (ledger.usage.foreign_bytes("gpu0"), ledger.draining.pending_bytes("gpu0")) == (0, 8 * G)
    assert scenario.read(0, times=2)
    assert ledger.draining.pending_bytes("gpu0") == 0
    scenario.memory.claim_processes(ExecutorProcesses(1, [10]))
    scenario.read(1 * G, (10, 1 * G))
    assert ledger.usage.foreign_bytes("gpu0") == 1 * G, "it is nobody's any more"

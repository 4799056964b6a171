"""Idle executors are unloaded while the host is short of memory, and a preload backs off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from runner.coordinator.devices.host_memory_guard import HOST_MEMORY_EVENT, HostMemoryGuard
from runner.coordinator.dispatch.prewarming import HOST_MEMORY
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.errors import Unsatisfiable
from runner.protocol.worker import AttemptEnded, DeviceReadings, ExecutorGone, ExecutorLoaded, UnloadExecutor
from tests.runner.coordinator import test_error_boundaries
from tests.runner.coordinator.dispatch.test_prewarming import PRELOADED, PrewarmScenario
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, run, spec

worker = test_error_boundaries.worker
GIB = 1 << 30


class MemoryScenario(PrewarmScenario):
    """A host of 16 GiB whose readings the test makes up."""

    def __init__(self, harness: LifecycleHarness, worker: WorkerHandle) -> None:
        super().__init__(harness, worker)
        self.registry = harness.devices(harness.build_memory_monitor())
        self.guard = HostMemoryGuard(
            scheduler_state=harness.scheduler_state,
            device_registry=self.registry,
            dispatcher=self.dispatch,
            plan_trigger=harness.plan_trigger,
        )

    async def read(self, available_bytes: int) -> list[int]:
        """The executors that are unloaded after a reading."""
        total = 16 * GIB
        devices = [("gpu9", GIB, GIB, 0), ("cpu", total, total - available_bytes, available_bytes)]
        self.guard.on_readings(DeviceReadings(devices, [], {}, []))
        return [order.executor for order in await self.turn() if isinstance(order, UnloadExecutor)]


def play(worker: WorkerHandle, body: Callable[[MemoryScenario], Awaitable[None]]) -> None:
    async def whole(harness: LifecycleHarness) -> None:
        await body(MemoryScenario(harness, worker))

    run(whole)


def test_one_that_idles_is_unloaded_and_one_that_runs_is_not(worker: WorkerHandle) -> None:
    async def body(scenario: MemoryScenario) -> None:
        (live,) = scenario.submit(1)
        await scenario.turn()
        await scenario.says(ExecutorLoaded(1, 0.1))
        assert await scenario.read(0) == []
        await scenario.says(AttemptEnded(live.job.id, live.attempt_in_flight, 1, None, output=b"1"))
        assert await scenario.read(8 * GIB) == []
        assert await scenario.read(GIB // 4) == [1]
        (event,) = scenario.registry.events["cpu"]
        assert event["type"] == HOST_MEMORY_EVENT
        assert "256 MiB of the host's 16 GiB were available, less than 819" in event["message"]
        assert event["message"].endswith("unloading 1 idle executors, 0 of them pinned")
        assert await scenario.read(0) == [], "it is told once"

    play(worker, body)


def test_a_preload_that_went_is_not_loaded_again_at_once(worker: WorkerHandle) -> None:
    async def body(scenario: MemoryScenario) -> None:
        scenario.describe(replace(PRELOADED, options=replace(PRELOADED.options, keep_alive_s=-1.0)))
        assert await scenario.orders() == ["LoadExecutor"]
        await scenario.says(ExecutorLoaded(1, 0.1))
        assert await scenario.read(0) == [1]
        await scenario.says(ExecutorGone(1, "unloaded", "told to"))
        assert await scenario.orders() == []
        (shown,) = scenario.wishes.build_document("h")["load_failures"]
        assert shown["error"]["code"] == HOST_MEMORY and shown["next_try_at"] is not None

    play(worker, body)


def test_a_pin_that_would_take_the_last_place_is_refused_with_the_reason(worker: WorkerHandle) -> None:
    async def body(scenario: MemoryScenario) -> None:
        pinned = spec(keep_alive_s=-1.0)
        other = replace(pinned, name="other")
        slot = scenario.harness.scheduler_state.residency.slots["cpu"]
        slot.device = slot.device.from_dict(slot.device.to_dict() | {"max_resident": 2})
        scenario.describe(pinned, other)
        assert scenario.wishes.build_document("h")["pin_refused"] is None
        scenario.ask()
        await scenario.turn()
        await scenario.says(ExecutorLoaded(1, 0.1))
        with pytest.raises(Unsatisfiable, match="cpu has 1 pinned of at most 2 executors"):
            scenario.ask("other")
        assert "raise max_resident" in scenario.wishes.build_document("other")["pin_refused"]
        scenario.ask()
        assert len(scenario.outcomes) == 2, "one that is loaded already is not refused"
        assert scenario.wishes.build_document("unknown")["pin_refused"] is None

    play(worker, body)

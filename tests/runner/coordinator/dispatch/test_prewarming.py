"""Executors without a job: who is told what, when a preload is tried again, what a reload makes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from runner.bounds import WAITING_LOADS_MAX
from runner.coordinator.dispatch.executor_handle import ExecutorHandle
from runner.coordinator.dispatch.load_failures import RETRY_MAX_S, RETRY_S, STABLE_S
from runner.coordinator.dispatch.prewarm_request import PrewarmFailure, preload_models, resolve_model
from runner.coordinator.processes.worker_pool import WorkerHandle
from runner.errors import NotFound, TooManyNames, UnknownHandler, Unsatisfiable, ValidationFailed
from runner.handlers.spec import HandlerSpec, Source
from runner.protocol.worker import AttemptEnded, ExecutorGone, ExecutorLoaded, LoadExecutor, UnloadExecutor
from tests.runner.coordinator import test_error_boundaries
from tests.runner.coordinator.dispatch.test_retire_executor import DispatchScenario
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, run, spec

worker = test_error_boundaries.worker
PRELOADED = spec(preload=("",))


class PrewarmScenario(DispatchScenario):
    """A scenario in which somebody asks for executors."""

    def __init__(self, harness: LifecycleHarness, worker: WorkerHandle) -> None:
        super().__init__(harness, worker)
        self.wishes = self.dispatch.prewarming
        self.outcomes: list[ExecutorHandle | PrewarmFailure] = []

    def describe(self, *specs: HandlerSpec) -> None:
        self.harness.queue_manager.set_handlers({each.name: each for each in specs})
        self.wishes.on_handlers_changed()

    def ask(self, handler: str = "h", **named: str) -> None:
        self.wishes.load(handler, named.get("model"), named.get("device"), self.outcomes.append)

    async def orders(self) -> list[str]:
        """What the worker is told in the next turn, in short."""
        return [type(order).__name__ for order in await self.turn()]

    async def fail(self, executor: int, code: str = "load_error") -> None:
        await self.says(ExecutorGone(executor, code, "why", detail={"traceback": "here"}))


def play(worker: WorkerHandle, body: Callable[[PrewarmScenario], Awaitable[None]]) -> None:
    async def whole(harness: LifecycleHarness) -> None:
        await body(PrewarmScenario(harness, worker))

    run(whole)


def test_all_who_ask_are_told_once_it_is_loaded(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.ask()
        scenario.ask()
        assert await scenario.orders() == ["LoadExecutor"]
        scenario.ask()
        await scenario.says(ExecutorLoaded(1, 0.1))
        assert [type(each) for each in scenario.outcomes] == [ExecutorHandle] * 3
        scenario.ask()
        assert len(scenario.outcomes) == 4 and await scenario.orders() == []

    play(worker, body)


def test_who_asks_is_told_why_it_failed_and_nobody_tries_again(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.ask()
        await scenario.turn()
        await scenario.fail(1)
        (failure,) = scenario.outcomes
        assert isinstance(failure, PrewarmFailure)
        assert failure.error == {"code": "load_error", "message": "why", "detail": {"traceback": "here"}}
        assert failure.next_at is None and await scenario.orders() == []
        (shown,) = scenario.wishes.build_document("h")["load_failures"]
        assert (shown["error"], shown["tries"], shown["next_try_at"]) == (failure.error, 1, None)
        scenario.ask()
        assert await scenario.orders() == ["LoadExecutor"]
        await scenario.says(ExecutorLoaded(2, 0.1))
        assert scenario.wishes.build_document("h")["load_failures"] == []

    play(worker, body)


def test_what_was_nobodys_fault_is_loaded_again_for_who_asked(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.ask()
        await scenario.turn()
        assert [type(each) for each in await scenario.says(ExecutorGone(1, "interrupted", "reloaded"))] == [
            LoadExecutor
        ]
        await scenario.says(ExecutorLoaded(2, 0.1))
        assert [type(each) for each in scenario.outcomes] == [ExecutorHandle]

    play(worker, body)


def test_who_joined_the_load_of_a_job_is_served_also_where_that_is_cut_off(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.submit(1)
        await scenario.turn()
        scenario.ask()
        assert scenario.outcomes == []
        # Its worker is gone: the job goes again, and loads what is asked for.
        scenario.message_handler._executors.remove_executor(1)
        assert "LoadExecutor" in await scenario.orders()
        await scenario.says(ExecutorLoaded(2, 0.1))
        assert [type(each) for each in scenario.outcomes] == [ExecutorHandle]

    play(worker, body)


def test_a_job_gets_what_was_loading_for_nobody(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.ask()
        await scenario.turn()
        (live,) = scenario.submit(1)
        assert await scenario.orders() == ["RunAttempts"]
        assert (live.phase, scenario.harness.queue_manager.reasons.for_live_job(live)) == (
            "starting",
            "loading",
        )

    play(worker, body)


def test_a_wish_is_dropped_where_a_job_has_it_loaded_in_the_same_turn(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.harness.scheduler_state.residency.set_max_executors("cpu", 2)
        scenario.ask()
        scenario.submit(1)
        orders = await scenario.orders()
        assert orders.count("LoadExecutor") == 1 and scenario.wishes.pending.of_handler("h") == []
        await scenario.says(ExecutorLoaded(1, 0.1))
        assert [type(each) for each in scenario.outcomes] == [ExecutorHandle]

    play(worker, body)


def test_pauses_between_tries_of_a_preload_grow_to_a_bound_and_begin_anew(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.describe(PRELOADED)
        pauses: list[float] = []
        for number in range(1, 10):
            assert await scenario.orders() == ["LoadExecutor"], number
            await scenario.fail(number)
            assert await scenario.orders() == []
            failure = scenario.wishes.failures.last["h", ""]
            assert failure.next_at is not None and failure.tries == number
            pauses.append(failure.next_at - failure.at)
            await scenario.harness.pass_time(pauses[-1])
        assert pauses == [min(RETRY_MAX_S, RETRY_S * 2**power) for power in range(9)]
        # One that was ready for long and dies begins anew, one that dies at once goes on.
        assert await scenario.orders() == ["LoadExecutor"]
        await scenario.says(ExecutorLoaded(10, 0.1))
        assert scenario.wishes.failures.last == {}
        await scenario.fail(10, "worker_crashed")
        assert scenario.wishes.failures.last["h", ""].tries == 10
        await scenario.harness.pass_time(RETRY_MAX_S)
        assert await scenario.orders() == ["LoadExecutor"]
        await scenario.says(ExecutorLoaded(11, 0.1))
        await scenario.harness.pass_time(STABLE_S + 1)
        await scenario.fail(11, "worker_crashed")
        assert scenario.wishes.failures.last["h", ""].tries == 1

    play(worker, body)


def test_a_preload_whose_handler_has_changed_is_tried_at_once(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.describe(PRELOADED)
        await scenario.turn()
        await scenario.fail(1)
        other = replace(spec(), name="other")
        scenario.describe(PRELOADED, other)
        assert await scenario.orders() == [] and scenario.wishes.build_document("h")["load_failures"]
        scenario.describe(replace(PRELOADED, version="v2"), other)
        assert scenario.wishes.build_document("h")["load_failures"] == []
        assert await scenario.orders() == ["LoadExecutor"]

    play(worker, body)


def test_who_asks_need_not_wait_for_the_pause_of_a_preload(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.describe(PRELOADED)
        await scenario.turn()
        await scenario.fail(1)
        assert await scenario.orders() == []
        scenario.ask()
        assert await scenario.orders() == ["LoadExecutor"]

    play(worker, body)


def test_an_asked_for_load_takes_the_place_of_a_preload_that_waits(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.harness.scheduler_state.set_device_open("cpu", False)
        scenario.describe(PRELOADED)
        await scenario.turn()
        (one,) = scenario.wishes.pending.of_handler("h")
        assert one.is_preload
        scenario.ask()
        (other,) = scenario.wishes.pending.of_handler("h")
        assert not other.is_preload
        (shown,) = scenario.wishes.build_document("h")["waiting"]
        assert shown["reason"] == "waiting_for_device" and shown["message"] and not shown["preload"]
        assert scenario.wishes.pending.closing_executors(other) == []

    play(worker, body)


def test_an_unloaded_preload_rests_until_it_is_asked_for(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.describe(PRELOADED)
        await scenario.turn()
        await scenario.says(ExecutorLoaded(1, 0.1))
        (post,) = scenario.wishes.unload("h", None, None)
        scenario.dispatch.control.retire(post)
        assert [type(each) for each in await scenario.turn()] == [UnloadExecutor]
        await scenario.says(ExecutorGone(1, "unloaded", "unloaded"))
        assert await scenario.orders() == []
        assert scenario.wishes.build_document("h")["preload_suspended"] == [None]
        scenario.ask()
        assert await scenario.orders() == ["LoadExecutor"]
        assert scenario.wishes.build_document("h")["preload_suspended"] == []

    play(worker, body)


def test_unload_withdraws_what_waits_and_tells_who_asked(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.harness.scheduler_state.set_device_open("cpu", False)
        scenario.ask(device="cpu")
        await scenario.turn()
        assert scenario.wishes.unload("h", None, None) == []
        (failure,) = scenario.outcomes
        assert isinstance(failure, PrewarmFailure) and failure.code == "unloaded"
        assert (
            scenario.wishes.pending.of_handler("h") == []
            and scenario.harness.scheduler_state.backlog.by_class == {}
        )

    play(worker, body)


def test_a_reload_makes_wishes_for_the_new_code_and_tells_where_there_is_none(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.harness.scheduler_state.set_device_open("cpu", False)
        scenario.ask()
        await scenario.turn()
        scenario.describe(replace(spec(), version="v2"))
        (one,) = scenario.wishes.pending.of_handler("h")
        assert one.job_class.version == "v2" and list(scenario.harness.scheduler_state.backlog.by_class) == [
            one.job_class
        ]
        scenario.describe()
        (failure,) = scenario.outcomes
        assert isinstance(failure, PrewarmFailure) and failure.code == "unknown_handler"
        assert scenario.harness.scheduler_state.backlog.by_class == {}

    play(worker, body)


def test_what_waits_for_no_job_is_in_no_queue(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.harness.scheduler_state.set_device_open("cpu", False)
        scenario.ask()
        await scenario.turn()
        assert list(scenario.harness.queue_manager.counts_by_reason()) == []

    play(worker, body)


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ({"handler": "nobody"}, UnknownHandler),
        ({"device": "gpu7"}, NotFound),
        ({"model": "m"}, ValidationFailed),
    ],
)
def test_what_does_not_exist_is_neither_loaded_nor_unloaded(
    worker: WorkerHandle, named: dict[str, str], error: type[Exception]
) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        with pytest.raises(error):
            scenario.ask(**named)
        with pytest.raises(error):
            scenario.wishes.unload(named.get("handler", "h"), named.get("model"), named.get("device"))
        assert scenario.wishes.pending.of_handler("h") == []

    play(worker, body)


def test_what_no_device_could_hold_is_refused(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.describe(spec(ram_bytes=1 << 50))
        with pytest.raises(Unsatisfiable, match="no device has more than 8 GiB"):
            scenario.ask()
        assert scenario.harness.scheduler_state.backlog.by_class == {}

    play(worker, body)


def test_a_broken_handler_can_be_unloaded(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.ask()
        await scenario.turn()
        await scenario.says(ExecutorLoaded(1, 0.1))
        broken = HandlerSpec("h", "", "broken", Source("file", "/h.py", "h"), error="no")
        scenario.describe(broken)
        assert [post.number for post in scenario.wishes.unload("h", None, None)] == [1]

    play(worker, body)


def test_the_loads_that_wait_are_bounded(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        scenario.describe(spec(model_by="m"))
        for number in range(WAITING_LOADS_MAX):
            scenario.ask(model=f"m{number}")
        scenario.ask(model="m0")
        with pytest.raises(TooManyNames, match="1000 loads wait"):
            scenario.ask(model="one more")
        assert len(scenario.wishes.pending) == WAITING_LOADS_MAX

    play(worker, body)


def test_models_are_named_where_there_are_some() -> None:
    plain, models = spec(), spec(model_by="m", preload=("a", "b"))
    assert resolve_model(plain, None) == "" and resolve_model(models, "a") == "a"
    for which, model in ((plain, "a"), (models, None)):
        with pytest.raises(ValidationFailed):
            resolve_model(which, model)
    assert preload_models(models) == ("a", "b") and preload_models(PRELOADED) == ("",)
    # What an operator's options contradict is left out.
    assert preload_models(spec(preload=("a",))) == preload_models(spec(model_by="m", preload=("",))) == ()


def test_a_wish_is_met_by_what_idles(worker: WorkerHandle) -> None:
    async def body(scenario: PrewarmScenario) -> None:
        (live,) = await scenario.busy(1)
        await scenario.says(AttemptEnded(live.job.id, live.attempt_in_flight, 1, None, output=b"1"))
        scenario.describe(PRELOADED)
        # It was loaded by a job: it is what is to be ready.
        assert await scenario.orders() == []

    play(worker, body)

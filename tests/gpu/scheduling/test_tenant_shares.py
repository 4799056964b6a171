"""Tenants in the plan: whose job starts next where several want the same devices."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from heapq import heappop, heappush

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu.devices.device import cpu, sim
from gpu.estimates.batch_sizing import BatchTerms
from gpu.job_class import JobClass
from gpu.planning.explain import explain
from gpu.planning.planner import LEAD_LOADS, LoadAction, StartAction, plan
from gpu.scheduling.fair_share import UNKNOWN_JOB_S
from gpu.scheduling.scheduler_state import SchedulerState
from gpu.scheduling.time_estimates import UNKNOWN_LOAD_S
from tests.gpu.planner_harness import G, PlannerHarness, make_class


def make_tenant_class(tenant: str, handler: str = "a", **fields: object) -> JobClass:
    return replace(make_class(handler, 20 * G), tenant=tenant, **fields)  # type: ignore[arg-type]


class TenantHarness:
    """Devices that run one job each; jobs take as long as they are told to."""

    def __init__(self, devices: int = 1, **weights: float) -> None:
        self.planner = PlannerHarness(*(sim(each, 24 * G, 1) for each in range(devices)), weights=weights)
        self.run_s: dict[int, float] = {}
        self.device_s: defaultdict[str, float] = defaultdict(float)
        #: In order of their starts.
        self.started: list[int] = []
        self._ends: list[tuple[float, int, int]] = []

    def submit(self, job_class: JobClass, count: int = 1, run_s: float = 10.0) -> list[int]:
        job_numbers = self.planner.submit(job_class, count)
        self.run_s |= dict.fromkeys(job_numbers, run_s)
        return job_numbers

    def tenant(self, job_number: int) -> str:
        return self.planner.classes[job_number].tenant

    def start_all(self) -> None:
        """Start all that can be; who is told to go is gone at once."""
        while True:
            executor = self.planner.executors
            made = self.planner.plan_and_apply()
            self.planner.remove_leaving()
            for action in made.actions:
                match action:
                    case StartAction():
                        (job_number,) = action.job_numbers
                        self._record_start(job_number, action.executor)
                    case LoadAction():
                        executor += 1
                        self._record_start(action.job_number, executor)
            if not made.actions:
                return

    def _record_start(self, job_number: int, executor: int) -> None:
        self.started.append(job_number)
        heappush(self._ends, (self.planner.now + self.run_s[job_number], job_number, executor))

    def run_to_next_end(self) -> str:
        """Until the next job has ended, and others start; gives whose that was."""
        self.planner.now, job_number, executor = heappop(self._ends)
        self.device_s[self.tenant(job_number)] += self.run_s[job_number] * len(
            self.planner.state.executors[executor].devices
        )
        self.planner.finish(executor)
        self.start_all()
        return self.tenant(job_number)


def test_one_tenant_goes_by_age() -> None:
    harness = TenantHarness()
    job_numbers = [harness.submit(make_tenant_class("a", handler))[0] for handler in ("x", "y", "x")]
    harness.start_all()
    while len(harness.started) < 3:
        harness.run_to_next_end()
    assert (
        sorted(harness.started) == job_numbers
        and not harness.planner.state.tenant_shares.clock_of(make_tenant_class("a")).has_many_tenants
    )


def test_tenants_take_turns_however_many_jobs_one_has() -> None:
    harness = TenantHarness()
    harness.submit(make_tenant_class("many"), 20)
    harness.start_all()
    harness.submit(make_tenant_class("few"), 4)
    for _ in range(8):
        harness.run_to_next_end()
    assert "".join(harness.tenant(job_number)[0] for job_number in harness.started[1:9]) in (
        "fmfmfmfm",
        "mfmfmfmf",
    )


def test_a_weight_is_a_part() -> None:
    harness = TenantHarness(heavy=3.0)
    for tenant in ("light", "heavy"):
        harness.submit(make_tenant_class(tenant), 40)
    harness.start_all()
    for _ in range(40):
        harness.run_to_next_end()
    assert harness.device_s["heavy"] == 3 * harness.device_s["light"]


def test_places_that_are_free_at_one_moment_are_shared() -> None:
    harness = TenantHarness(devices=4)
    harness.submit(make_tenant_class("a"), 9)
    harness.submit(make_tenant_class("b", "other"), 9)
    harness.start_all()
    assert Counter(map(harness.tenant, harness.started)) == {"a": 2, "b": 2}


def test_priority_goes_before_shares() -> None:
    harness = TenantHarness()
    harness.submit(make_tenant_class("a"), 3)
    harness.start_all()
    harness.submit(make_tenant_class("b"), 1)
    urgent = harness.submit(make_tenant_class("a", priority=60), 2)
    harness.run_to_next_end()
    harness.run_to_next_end()
    assert harness.started[1:3] == urgent


def test_a_flood_that_has_waited_for_long_is_no_older_than_a_newcomer() -> None:
    harness = TenantHarness()
    harness.submit(make_tenant_class("flood", priority=40), 50)
    harness.start_all()
    harness.planner.now = 7_200.0
    (newcomer,) = harness.submit(make_tenant_class("new"))
    harness.run_to_next_end()
    harness.run_to_next_end()
    assert newcomer in harness.started[1:3]


def test_a_flood_with_all_that_is_loaded_goes_before_a_newcomer_only_so_often() -> None:
    harness = TenantHarness()
    harness.submit(make_tenant_class("flood"), 100, run_s=1.0)
    harness.start_all()
    for _ in range(5):
        harness.run_to_next_end()
    (newcomer,) = harness.submit(make_tenant_class("new", "other"))
    for _ in range(12):
        harness.run_to_next_end()
    # One that stood beside it when it came, and those who spared a load.
    assert harness.started.index(newcomer) - 6 <= 1 + 8


def test_a_gang_of_one_tenant_is_not_kept_out_by_small_jobs_of_others() -> None:
    harness = TenantHarness(devices=3)
    for tenant in ("b", "c"):
        harness.submit(make_tenant_class(tenant), 100, run_s=3.0)
    harness.start_all()
    (gang,) = harness.submit(make_tenant_class("a", "gang", gpus=3))
    for _ in range(40):
        harness.run_to_next_end()
    assert harness.started.index(gang) <= 3 + 8 + 3


def test_the_cpu_is_shared_apart_from_the_gpus() -> None:
    state = SchedulerState([sim(0, 24 * G), cpu("m", "c", 16 * G, 2)])
    on_cpu, on_gpu = replace(make_class("c", 0, gpus=0), tenant="a"), make_tenant_class("a")
    assert state.tenant_shares.clock_of(on_cpu) is not state.tenant_shares.clock_of(on_gpu)
    for job_number, job_class in enumerate(
        (on_cpu, replace(on_cpu, tenant="b"), on_gpu, make_tenant_class("b"))
    ):
        state.add_waiting(job_class, job_number)
    state.load(1, on_cpu, 0, ("cpu",), 0, now=5.0)
    assert state.tenant_shares.clock_of(on_cpu).rank("a") > state.tenant_shares.clock_of(on_cpu).rank("b")
    assert (
        state.tenant_shares.clock_of(on_gpu).rank("a") == state.tenant_shares.clock_of(on_gpu).rank("b") == 0
    )
    state.on_loaded(1, None, 6.0)
    state.on_attempt_ended(1, on_cpu, 0, 9.0)
    assert state.tenant_shares.clock_of(on_cpu).rank("a") == 4


def test_a_lane_with_one_tenant_counts_nothing_however_many_the_other_has() -> None:
    state = SchedulerState([sim(0, 24 * G), cpu("m", "c", 16 * G, 2)])
    on_cpu = replace(make_class("c", 0, gpus=0), tenant="a")
    for job_number, job_class in enumerate((on_cpu, make_tenant_class("a"), make_tenant_class("b"))):
        state.add_waiting(job_class, job_number)
    state.load(1, on_cpu, 0, ("cpu",), 0, now=5.0)
    assert not state.tenant_shares.clock_of(on_cpu).has_running


def test_jobs_that_share_an_executor_share_its_time() -> None:
    state = SchedulerState([cpu("m", "c", 16 * G, 2)])
    a = replace(make_class("c", 0, gpus=0), tenant="a")
    for job_number in (1, 2, 3):
        state.add_waiting(a, job_number)
    state.add_waiting(replace(a, tenant="b"), 4)
    state.load(1, a, 1, ("cpu",), 0, now=10.0)
    state.on_loaded(1, None, 10.0)
    state.start(1, a, (2, 3), now=10.0)
    shares = state.tenant_shares.clock_of(a)
    state.on_attempt_ended(1, a, 1, 14.0)
    state.on_attempt_ended(1, a, 2, 15.0)
    state.on_attempt_ended(1, a, 3, 15.0, has_run=False)
    assert shares.rank("a") == 5
    state.add_waiting(a, 3)
    state.start(1, a, (3,), now=20.0)
    assert state.on_executor_gone(1, 30.0) == [(3, a)]
    assert shares.rank("a") == 5 and not shares.has_running


def test_explain_tells_of_a_tenant_that_had_more_than_another() -> None:
    harness = TenantHarness()
    harness.submit(make_tenant_class("a"), 1, run_s=60.0)
    late = harness.submit(make_tenant_class("a"), 1)[0]
    harness.submit(make_tenant_class("b"), 2)
    harness.start_all()
    told = explain(harness.planner.state, make_tenant_class("a"), late)
    assert told["tenant_lead_s"] == UNKNOWN_JOB_S
    harness.run_to_next_end()
    assert explain(harness.planner.state, make_tenant_class("b"), 4)["tenant_lead_s"] == 0


def test_a_wish_is_nobodys() -> None:
    state = SchedulerState([sim(0, 24 * G)])
    wish = make_class("a", 20 * G, priority=-1)
    state.add_waiting(make_tenant_class("a"), 1)
    state.add_waiting(wish, -1)
    assert not state.tenant_shares.clock_of(wish).has_many_tenants
    state.add_waiting(make_tenant_class("b"), 2)
    state.remove_waiting(make_tenant_class("a"), 1)
    state.add_waiting(replace(wish, version="2"), -2)
    state.load(1, wish, -1, ("sim0",), 20 * G)
    assert not state.tenant_shares.clock_of(wish).has_running
    plan(state, 1.0)


def test_those_who_run_together_are_charged_for_one_run() -> None:
    state = SchedulerState([sim(0, 24 * G)])
    state.batch_sizing.set_handler("a", "1", BatchTerms(4, 0.0))
    for job_number, tenant in enumerate("aaaab"):
        state.add_waiting(make_tenant_class(tenant), job_number)
    state.load(1, make_tenant_class("a"), 0, ("sim0",), 20 * G, extra_job_numbers=(1, 2, 3))
    assert state.tenant_shares.clock_of(make_tenant_class("a")).rank("a") == UNKNOWN_JOB_S


RUNS_S = st.lists(st.floats(0.5, 20.0), min_size=1, max_size=8)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    weights=st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=2, max_size=4),
    devices=st.integers(1, 3),
    runs_s=st.lists(RUNS_S, min_size=4, max_size=4),
    own_handlers=st.booleans(),
)
def test_those_who_always_wait_have_had_alike_for_their_weights(
    weights: list[float], devices: int, runs_s: list[list[float]], own_handlers: bool
) -> None:
    """Through the whole plan, with all that it does out of turn: by how much is bounded, however long it goes
    on, and every job starts at last."""
    names = [f"t{each}" for each in range(len(weights))]
    weight = dict(zip(names, weights, strict=True))
    harness = TenantHarness(devices, **weight)
    for name, each in zip(names, runs_s, strict=False):
        for run_s in each * 15:
            harness.submit(make_tenant_class(name, name if own_handlers else "a"), run_s=run_s)
    harness.start_all()
    bound_s = 2 * (devices + 1) * 20.0 / min(weights) + (LEAD_LOADS * UNKNOWN_LOAD_S if own_handlers else 0.0)
    while all(
        any(job_class.tenant == name for job_class in harness.planner.state.backlog.by_class)
        for name in names
    ):
        harness.run_to_next_end()
        had = [harness.device_s[name] / weight[name] for name in names]
        assert max(had) - min(had) <= bound_s
    while harness.planner.state.backlog.by_class:
        harness.run_to_next_end()
    assert sorted(harness.started) == sorted(harness.run_s)

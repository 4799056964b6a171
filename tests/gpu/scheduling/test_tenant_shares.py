"""Tenants in the plan: whose job starts next where several want the same devices."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from heapq import heappop, heappush

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

    def submit(self, cls: JobClass, count: int = 1, run_s: float = 10.0) -> list[int]:
        ns = self.planner.submit(cls, count)
        self.run_s |= dict.fromkeys(ns, run_s)
        return ns

    def tenant(self, n: int) -> str:
        return self.planner.classes[n].tenant

    def start_all(self) -> None:
        """Start all that can be; who is told to go is gone at once."""
        while True:
            executor = self.planner.executors
            made = self.planner.plan_and_apply()
            self.planner.remove_leaving()
            for action in made.actions:
                match action:
                    case StartAction():
                        (n,) = action.job_numbers
                        self._record_start(n, action.executor)
                    case LoadAction():
                        executor += 1
                        self._record_start(action.job_number, executor)
            if not made.actions:
                return

    def _record_start(self, n: int, executor: int) -> None:
        self.started.append(n)
        heappush(self._ends, (self.planner.now + self.run_s[n], n, executor))

    def run_to_next_end(self) -> str:
        """Until the next job has ended, and others start; gives whose that was."""
        self.planner.now, n, executor = heappop(self._ends)
        self.device_s[self.tenant(n)] += self.run_s[n] * len(self.planner.state.executors[executor].devices)
        self.planner.finish(executor)
        self.start_all()
        return self.tenant(n)


def test_one_tenant_goes_by_age() -> None:
    house = TenantHarness()
    ns = [house.submit(make_tenant_class("a", handler))[0] for handler in ("x", "y", "x")]
    house.start_all()
    while len(house.started) < 3:
        house.run_to_next_end()
    assert (
        sorted(house.started) == ns
        and not house.planner.state.tenant_shares.clock_of(make_tenant_class("a")).has_many_tenants
    )


def test_tenants_take_turns_however_many_jobs_one_has() -> None:
    house = TenantHarness()
    house.submit(make_tenant_class("many"), 20)
    house.start_all()
    house.submit(make_tenant_class("few"), 4)
    for _ in range(8):
        house.run_to_next_end()
    assert "".join(house.tenant(n)[0] for n in house.started[1:9]) in ("fmfmfmfm", "mfmfmfmf")


def test_a_weight_is_a_part() -> None:
    house = TenantHarness(heavy=3.0)
    for tenant in ("light", "heavy"):
        house.submit(make_tenant_class(tenant), 40)
    house.start_all()
    for _ in range(40):
        house.run_to_next_end()
    assert house.device_s["heavy"] == 3 * house.device_s["light"]


def test_places_that_are_free_at_one_moment_are_shared() -> None:
    house = TenantHarness(devices=4)
    house.submit(make_tenant_class("a"), 9)
    house.submit(make_tenant_class("b", "other"), 9)
    house.start_all()
    assert Counter(map(house.tenant, house.started)) == {"a": 2, "b": 2}


def test_priority_goes_before_shares() -> None:
    house = TenantHarness()
    house.submit(make_tenant_class("a"), 3)
    house.start_all()
    house.submit(make_tenant_class("b"), 1)
    urgent = house.submit(make_tenant_class("a", priority=60), 2)
    house.run_to_next_end()
    house.run_to_next_end()
    assert house.started[1:3] == urgent


def test_a_flood_that_has_waited_for_long_is_no_older_than_a_newcomer() -> None:
    house = TenantHarness()
    house.submit(make_tenant_class("flood", priority=40), 50)
    house.start_all()
    house.planner.now = 7_200.0
    (newcomer,) = house.submit(make_tenant_class("new"))
    house.run_to_next_end()
    house.run_to_next_end()
    assert newcomer in house.started[1:3]


def test_a_flood_with_all_that_is_loaded_goes_before_a_newcomer_only_so_often() -> None:
    house = TenantHarness()
    house.submit(make_tenant_class("flood"), 100, run_s=1.0)
    house.start_all()
    for _ in range(5):
        house.run_to_next_end()
    (newcomer,) = house.submit(make_tenant_class("new", "other"))
    for _ in range(12):
        house.run_to_next_end()
    # One that stood beside it when it came, and those who spared a load.
    assert house.started.index(newcomer) - 6 <= 1 + 8


def test_a_gang_of_one_tenant_is_not_kept_out_by_small_jobs_of_others() -> None:
    house = TenantHarness(devices=3)
    for tenant in ("b", "c"):
        house.submit(make_tenant_class(tenant), 100, run_s=3.0)
    house.start_all()
    (gang,) = house.submit(make_tenant_class("a", "gang", gpus=3))
    for _ in range(40):
        house.run_to_next_end()
    assert house.started.index(gang) <= 3 + 8 + 3


def test_the_cpu_is_shared_apart_from_the_gpus() -> None:
    view = SchedulerState([sim(0, 24 * G), cpu("m", "c", 16 * G, 2)])
    on_cpu, on_gpu = replace(make_class("c", 0, gpus=0), tenant="a"), make_tenant_class("a")
    assert view.tenant_shares.clock_of(on_cpu) is not view.tenant_shares.clock_of(on_gpu)
    for n, cls in enumerate((on_cpu, replace(on_cpu, tenant="b"), on_gpu, make_tenant_class("b"))):
        view.add_waiting(cls, n)
    view.load(1, on_cpu, 0, ("cpu",), 0, now=5.0)
    assert view.tenant_shares.clock_of(on_cpu).rank("a") > view.tenant_shares.clock_of(on_cpu).rank("b")
    assert view.tenant_shares.clock_of(on_gpu).rank("a") == view.tenant_shares.clock_of(on_gpu).rank("b") == 0
    view.on_loaded(1, None, 6.0)
    view.on_attempt_ended(1, on_cpu, 0, 9.0)
    assert view.tenant_shares.clock_of(on_cpu).rank("a") == 4


def test_a_lane_with_one_tenant_counts_nothing_however_many_the_other_has() -> None:
    view = SchedulerState([sim(0, 24 * G), cpu("m", "c", 16 * G, 2)])
    on_cpu = replace(make_class("c", 0, gpus=0), tenant="a")
    for n, cls in enumerate((on_cpu, make_tenant_class("a"), make_tenant_class("b"))):
        view.add_waiting(cls, n)
    view.load(1, on_cpu, 0, ("cpu",), 0, now=5.0)
    assert not view.tenant_shares.clock_of(on_cpu).has_running


def test_jobs_that_share_an_executor_share_its_time() -> None:
    view = SchedulerState([cpu("m", "c", 16 * G, 2)])
    a = replace(make_class("c", 0, gpus=0), tenant="a")
    for n in (1, 2, 3):
        view.add_waiting(a, n)
    view.add_waiting(replace(a, tenant="b"), 4)
    view.load(1, a, 1, ("cpu",), 0, now=10.0)
    view.on_loaded(1, None, 10.0)
    view.start(1, a, (2, 3), now=10.0)
    shares = view.tenant_shares.clock_of(a)
    view.on_attempt_ended(1, a, 1, 14.0)
    view.on_attempt_ended(1, a, 2, 15.0)
    view.on_attempt_ended(1, a, 3, 15.0, has_run=False)
    assert shares.rank("a") == 5
    view.add_waiting(a, 3)
    view.start(1, a, (3,), now=20.0)
    assert view.on_executor_gone(1, 30.0) == [(3, a)]
    assert shares.rank("a") == 5 and not shares.has_running


def test_explain_tells_of_a_tenant_that_had_more_than_another() -> None:
    house = TenantHarness()
    house.submit(make_tenant_class("a"), 1, run_s=60.0)
    late = house.submit(make_tenant_class("a"), 1)[0]
    house.submit(make_tenant_class("b"), 2)
    house.start_all()
    told = explain(house.planner.state, make_tenant_class("a"), late)
    assert told["tenant_lead_s"] == UNKNOWN_JOB_S
    house.run_to_next_end()
    assert explain(house.planner.state, make_tenant_class("b"), 4)["tenant_lead_s"] == 0


def test_a_wish_is_nobodys() -> None:
    view = SchedulerState([sim(0, 24 * G)])
    wish = make_class("a", 20 * G, priority=-1)
    view.add_waiting(make_tenant_class("a"), 1)
    view.add_waiting(wish, -1)
    assert not view.tenant_shares.clock_of(wish).has_many_tenants
    view.add_waiting(make_tenant_class("b"), 2)
    view.remove_waiting(make_tenant_class("a"), 1)
    view.add_waiting(replace(wish, version="2"), -2)
    view.load(1, wish, -1, ("sim0",), 20 * G)
    assert not view.tenant_shares.clock_of(wish).has_running
    plan(view, 1.0)


def test_those_who_run_together_are_charged_for_one_run() -> None:
    view = SchedulerState([sim(0, 24 * G)])
    view.batch_sizing.set_handler("a", "1", BatchTerms(4, 0.0))
    for n, tenant in enumerate("aaaab"):
        view.add_waiting(make_tenant_class(tenant), n)
    view.load(1, make_tenant_class("a"), 0, ("sim0",), 20 * G, mates=(1, 2, 3))
    assert view.tenant_shares.clock_of(make_tenant_class("a")).rank("a") == UNKNOWN_JOB_S


RUNS_S = st.lists(st.floats(0.5, 20.0), min_size=1, max_size=8)


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
    house = TenantHarness(devices, **weight)
    for name, each in zip(names, runs_s, strict=False):
        for run_s in each * 15:
            house.submit(make_tenant_class(name, name if own_handlers else "a"), run_s=run_s)
    house.start_all()
    bound_s = 2 * (devices + 1) * 20.0 / min(weights) + (LEAD_LOADS * UNKNOWN_LOAD_S if own_handlers else 0.0)
    while all(any(cls.tenant == name for cls in house.planner.state.backlog.by_class) for name in names):
        house.run_to_next_end()
        had = [house.device_s[name] / weight[name] for name in names]
        assert max(had) - min(had) <= bound_s
    while house.planner.state.backlog.by_class:
        house.run_to_next_end()
    assert sorted(house.started) == sorted(house.run_s)

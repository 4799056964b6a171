from __future__ import annotations

from dataclasses import replace

from gpu import demand, pace
from gpu.demand import FADE_S, Demand
from gpu.pace import Pace
from gpu.view import View
from tests.gpu.rig import job_class

HOUR = replace(job_class("a"), limit_s=3600.0)


def test_a_limit_counts_until_enough_of_its_like_have_run() -> None:
    view = View()
    assert view.times.run_s(HOUR) == 3600
    for _ in range(pace.RUNS_MIN - 1):
        view.ran(HOUR, None, 60.0)
    assert view.times.run_s(HOUR) == 3600
    view.ran(HOUR, None, 60.0)
    assert view.times.run_s(HOUR) == 60
    assert view.times.run_s(replace(HOUR, limit_s=30.0)) == 30, "of another limit nothing is known"


def test_without_a_limit_the_median_counts() -> None:
    view, cls = View(), job_class("a")
    assert view.times.run_s(cls) is None
    for run_s in (1.0, 2.0, 50.0):
        view.ran(cls, None, run_s)
    assert view.times.run_s(cls) == 2.0


def test_kinds_that_were_not_heard_of_for_longest_are_forgotten() -> None:
    known = Pace()
    for place in range(pace.KINDS_MAX + 1):
        for _ in range(pace.RUNS_MIN):
            known.ran(replace(HOUR, size=str(place)), 1.0)
    assert known.run_s(replace(HOUR, size="0"), 0.9) is None
    assert known.run_s(replace(HOUR, size="1"), 0.9) == 1.0


def test_demand_fades() -> None:
    asked = Demand()
    key = job_class("a").key
    assert asked.rate(key, 5.0) == 0.0
    asked.count(key, 36, 0.0)
    assert asked.rate(key, 0.0) == 36 / FADE_S
    assert 0.3 < asked.rate(key, FADE_S) / asked.rate(key, 0.0) < 0.4


def test_demand_of_what_is_asked_for_least_is_forgotten() -> None:
    asked = Demand()
    for place in range(demand.KEYS_MAX + 1):
        asked.count(("h", "1", str(place)), 1 + place, 0.0)
    assert asked.rate(("h", "1", "0"), 0.0) == 0.0
    assert asked.rate(("h", "1", str(demand.KEYS_MAX)), 0.0) > 0.0

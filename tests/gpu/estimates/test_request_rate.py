"""What is asked for fades, and what is asked for least is forgotten."""

from __future__ import annotations

from gpu.estimates import request_rate
from gpu.estimates.request_rate import FADE_S, RequestRates
from tests.gpu.planner_harness import make_class


def test_demand_fades() -> None:
    asked = RequestRates()
    key = make_class("a").key
    assert asked.rate(key, 5.0) == 0.0
    asked.record_starts(key, 36, 0.0)
    assert asked.rate(key, 0.0) == 36 / FADE_S
    assert 0.3 < asked.rate(key, FADE_S) / asked.rate(key, 0.0) < 0.4


def test_demand_of_what_is_asked_for_least_is_forgotten() -> None:
    asked = RequestRates()
    for place in range(request_rate.KEYS_MAX + 1):
        asked.record_starts(("h", "1", str(place)), 1 + place, 0.0)
    assert asked.rate(("h", "1", "0"), 0.0) == 0.0
    assert asked.rate(("h", "1", str(request_rate.KEYS_MAX)), 0.0) > 0.0

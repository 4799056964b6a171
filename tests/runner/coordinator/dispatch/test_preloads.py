"""What is to be loaded always: which of it is missing, and what an unload suspends."""

from __future__ import annotations

from msgspec.structs import replace

from gpu.scheduling.scheduler_state import SchedulerState
from runner.coordinator.dispatch.preloads import Preloads
from tests.runner.coordinator.lifecycle_harness import CPU, spec

SMALL, LARGE = ("h", "small"), ("h", "large")
MODELS = spec(model_by="model", preload=("small", "large"))
OTHER = replace(spec(preload=("",)), name="other")


def preloads() -> tuple[Preloads, SchedulerState]:
    scheduler_state = SchedulerState([CPU])
    made = Preloads(scheduler_state)
    made.set_handlers({"h": MODELS, "other": OTHER})
    return made, scheduler_state


def missing(made: Preloads) -> list[tuple[str, str]]:
    return [name for name, _ in made.find_missing()]


def test_each_model_is_kept_until_it_is_suspended_by_name() -> None:
    made, scheduler_state = preloads()
    assert missing(made) == [SMALL, LARGE, ("other", "")]
    made.suspend("h", "small", loaded=())
    assert missing(made) == [LARGE, ("other", "")]
    assert scheduler_state.residency.keep_loaded == {("h", "v1", "large"), ("other", "v1", "")}
    assert (made.suspended_models("h"), made.suspended_models("other")) == (["small"], [])
    made.resume(SMALL)
    assert missing(made) == [SMALL, LARGE, ("other", "")] and made.suspended_models("h") == []


def test_a_model_that_is_still_loaded_elsewhere_is_not_suspended() -> None:
    made, _ = preloads()
    made.suspend("h", None, loaded={LARGE})
    assert made.suspended_models("h") == ["small"]


def test_a_handler_that_is_gone_or_broken_has_no_preloads() -> None:
    made, scheduler_state = preloads()
    made.suspend("h", None, loaded=())
    made.set_handlers({"h": replace(MODELS, state="broken")})
    assert SMALL not in made and made.suspended_models("h") == []
    assert missing(made) == [] and scheduler_state.residency.keep_loaded == set()
    made.set_handlers({"h": MODELS})
    assert SMALL in made and missing(made) == [SMALL, LARGE]

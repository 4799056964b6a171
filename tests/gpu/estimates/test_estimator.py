"""What is expected of jobs after others of their like have run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu.estimates.estimator import ENOUGH_RUNS, MODELS_MAX, SIZES_MAX, Estimator
from gpu.estimates.observations import (
    LIMITS_MAX,
    MARGIN_BYTES,
    MIB,
    OOM_HALF_LIFE,
    OVERDECLARED_MIN_PEAKS,
    Observations,
)
from gpu.job_class import JobClass

GIB = 1024 * MIB


def make_class(
    need: int | None = None,
    *,
    handler: str = "a",
    model: str = "",
    size: str = "",
    limit_s: float = math.inf,
    strict: bool = False,
    alone: bool = False,
    gpus: int = 1,
) -> JobClass:
    return JobClass(
        "q",
        handler,
        "1",
        model,
        50,
        need,
        gpus,
        size=size,
        limit_s=limit_s,
        strict=strict,
        alone_on_device=alone,
    )


def make_estimator(*peaks: int, of: JobClass | None = None) -> Estimator:
    estimates = Estimator()
    for peak in peaks:
        estimates.record_run(of or make_class(), peak, None)
    return estimates


# Memory.


def test_of_what_never_ran_nothing_is_known() -> None:
    estimates = Estimator()
    assert estimates.need_bytes(make_class()) is None
    assert estimates.need_bytes(make_class(6 * GIB)) == 6 * GIB
    assert estimates.need_bytes(make_class(0)) == 0
    assert estimates.resident_bytes(make_class().key) is None and estimates.minimum_bytes(make_class()) == 0


@pytest.mark.parametrize(("count", "share"), [(1, 1.5), (4, 1.25), (16, 1.125), (64, 1.0625)])
def test_the_margin_shrinks_with_evidence(count: int, share: float) -> None:
    part = Observations()
    for _ in range(count):
        part.add_peak(4 * GIB, None)
    assert part.estimate() == 4 * GIB * share + MARGIN_BYTES
    # What is told follows in steps.
    assert part.estimate() <= part.need_bytes <= part.estimate() / 0.95


@given(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=100))
def test_more_is_told_than_all_but_the_rarest_took(peaks: list[int]) -> None:
    part = Observations()
    for peak in peaks:
        part.add_peak(peak, None)
        assert part.need_bytes >= peak
    assert part.need_bytes > part.peak_bytes
    assert part.need_for(None, is_own=True) == part.need_bytes


def test_a_peak_within_half_of_the_margin_changes_nothing() -> None:
    estimates = make_estimator(*[4 * GIB] * 63)
    before = estimates.need_bytes(make_class())
    assert not estimates.record_run(make_class(), 4 * GIB + 100 * MIB, None)
    assert estimates.need_bytes(make_class()) == before
    assert estimates.record_run(make_class(), 6 * GIB, None)
    after = estimates.need_bytes(make_class())
    assert after is not None and before is not None and after > before


def test_less_is_told_where_less_is_taken_for_long() -> None:
    estimates = make_estimator(*([8 * GIB] * 3 + [2 * GIB] * 64))
    need = estimates.need_bytes(make_class())
    assert need is not None and need < 2.5 * GIB


def test_on_a_device_that_the_peak_fits_the_margin_is_what_there_is() -> None:
    estimates = make_estimator(20 * GIB)
    assert estimates.need_bytes(make_class()) == 30 * GIB + MARGIN_BYTES
    assert estimates.need_bytes(make_class(), 24 * GIB) == 24 * GIB
    assert estimates.need_bytes(make_class(), 80 * GIB) == 30 * GIB + MARGIN_BYTES
    assert estimates.need_bytes(make_class(), 16 * GIB) == 30 * GIB + MARGIN_BYTES


def test_sizes_are_learned_apart_and_others_go_by_all() -> None:
    small, large = make_class(size="512"), make_class(size="1024")
    estimates = make_estimator(*[2 * GIB] * 64, of=small)
    for _ in range(64):
        estimates.record_run(large, 8 * GIB, None)
    small_need, large_need = estimates.need_bytes(small), estimates.need_bytes(large)
    assert small_need is not None and small_need < 3 * GIB
    assert large_need is not None and large_need > 8 * GIB
    other = estimates.need_bytes(make_class(size="2048"))
    assert other is not None and other > 8 * GIB
    assert estimates.need_bytes(make_class(model="m", size="512")) is None


def test_running_out_says_that_more_is_needed_and_fades() -> None:
    declared = make_class(4 * GIB)
    estimates = Estimator()
    estimates.record_oom(declared, 4 * GIB)
    assert estimates.need_bytes(declared) == 5 * GIB
    estimates.record_oom(declared, 5 * GIB)
    assert estimates.need_bytes(declared) == 5 * GIB * 5 // 4
    for _ in range(OOM_HALF_LIFE):
        estimates.record_run(declared, 2 * GIB, None)
    ((_, model),) = estimates.models("a")
    assert model.whole.oom_minimum_bytes == pytest.approx(5 * GIB * 1.25 / 2)
    assert model.whole.out_of_memory == 2
    for _ in range(10 * OOM_HALF_LIFE):
        estimates.record_run(declared, 2 * GIB, None)
    need = estimates.need_bytes(declared)
    assert need is not None and need < 2.3 * GIB


def test_who_had_all_there_is_or_more_than_others_takes_nobody_along() -> None:
    estimates = make_estimator(2 * GIB)
    estimates.record_oom(make_class(6 * GIB), None)
    estimates.record_oom(make_class(20 * GIB, alone=True), 20 * GIB)
    assert estimates.need_bytes(make_class(6 * GIB)) == 6 * GIB
    assert estimates.need_bytes(make_class()) is None
    ((_, model),) = estimates.models("a")
    assert (model.whole.out_of_memory, model.whole.oom_minimum_bytes) == (2, 0)


def test_an_unknown_need_that_was_too_little_is_unknown_until_it_is_measured_again() -> None:
    estimates = make_estimator(2 * GIB)
    estimates.record_oom(make_class(), 3 * GIB)
    assert estimates.need_bytes(make_class()) is None
    assert estimates.record_run(make_class(), 4 * GIB, None)
    need = estimates.need_bytes(make_class())
    assert need is not None and need > 4 * GIB


def test_a_declared_need_stands_until_there_is_evidence() -> None:
    declared = make_class(6 * GIB)
    estimates = make_estimator(6 * GIB, of=declared)
    assert estimates.need_bytes(declared) == 6 * GIB
    estimates = make_estimator(*[1 * GIB] * (OVERDECLARED_MIN_PEAKS - 1), of=declared)
    assert estimates.need_bytes(declared) == 6 * GIB
    assert estimates.record_run(declared, 1 * GIB, None)
    need = estimates.need_bytes(declared)
    assert need is not None and GIB < need < 1.3 * GIB


def test_what_was_declared_is_not_lowered_by_other_sizes_but_raised() -> None:
    estimates = make_estimator(*[1 * GIB] * OVERDECLARED_MIN_PEAKS, of=make_class(6 * GIB, size="512"))
    assert estimates.need_bytes(make_class(6 * GIB, size="2048")) == 6 * GIB
    lowered = estimates.need_bytes(make_class(6 * GIB, size="512"))
    assert lowered is not None and lowered < 2 * GIB
    estimates.record_run(make_class(6 * GIB, size="1024"), 8 * GIB, None)
    raised = estimates.need_bytes(make_class(6 * GIB, size="2048"))
    assert raised is not None and raised > 8 * GIB


def test_a_declared_need_that_was_passed_is_raised() -> None:
    declared = make_class(6 * GIB)
    need = make_estimator(7 * GIB, of=declared).need_bytes(declared)
    assert need == 7 * GIB * 3 // 2 + MARGIN_BYTES


def test_a_strict_need_is_never_passed_but_may_fall() -> None:
    declared = make_class(6 * GIB, strict=True)
    estimates = make_estimator(7 * GIB, of=declared)
    assert estimates.need_bytes(declared) == 6 * GIB
    estimates.record_oom(declared, 6 * GIB)
    assert estimates.need_bytes(declared) == 6 * GIB
    need = make_estimator(*[1 * GIB] * OVERDECLARED_MIN_PEAKS, of=declared).need_bytes(declared)
    assert need is not None and need < 2 * GIB


def test_noise_near_the_bound_makes_no_warm_executor_unfit() -> None:
    declared = make_class(10 * GIB)
    estimates = make_estimator(*[7 * GIB] * 32, of=declared)
    before = estimates.need_bytes(declared)
    assert before is not None and before < 0.8 * 10 * GIB
    for job_number in range(200):
        estimates.record_run(declared, 7 * GIB + (job_number % 5) * 20 * MIB, None)
        now = estimates.need_bytes(declared)
        assert now is not None and now <= before


def test_less_than_declared_is_given_up_where_jobs_come_near_to_it() -> None:
    declared = make_class(10 * GIB)
    estimates = make_estimator(*[7 * GIB] * 32, of=declared)
    estimates.record_run(declared, 9 * GIB + GIB // 2, None)
    assert estimates.need_bytes(declared) == 10 * GIB


def test_what_was_reckoned_for_one_job_is_granted_as_it_is() -> None:
    estimates = make_estimator(*[2 * GIB] * 30)
    assert estimates.need_bytes(make_class(9 * GIB, alone=True)) == 9 * GIB
    known = estimates.need_bytes(make_class())
    assert known is not None and estimates.need_bytes(make_class(alone=True)) == known
    estimates.record_run(make_class(9 * GIB, alone=True), 2 * GIB, None)
    assert estimates.need_bytes(make_class(2 * GIB)) == 2 * GIB


def test_what_is_held_after_loading_is_known_by_model() -> None:
    estimates = Estimator()
    for nbytes in (3 * GIB, 4 * GIB):
        estimates.record_load(make_class(model="m").key, nbytes, None)
    estimates.record_load(make_class(model="m").key, None, 2.0)
    assert estimates.resident_bytes(make_class(model="m").key) == 4 * GIB
    assert estimates.resident_bytes(make_class().key) is None


# Time.


def test_times_go_from_size_to_model_to_handler() -> None:
    estimates = Estimator()
    known = make_class(model="m", size="1")
    for _ in range(4):
        estimates.record_run(known, None, 10.0)
    estimates.record_load(known.key, None, 3.0)
    for other in (
        known,
        make_class(model="m", size="2"),
        make_class(model="m"),
        make_class(model="n", size="1"),
        make_class(),
    ):
        assert (estimates.run_s(other), estimates.run_mean_s(other)) == (10.0, 10.0)
        assert estimates.load_s(other.key) == 3.0
    estimates.record_run(make_class(model="n"), None, 20.0)
    assert estimates.run_s(make_class(model="n", size="1")) == 20.0
    assert estimates.load_s(make_class(handler="b").key) is None
    assert estimates.run_mean_s(make_class(handler="b")) is None


def test_until_some_of_its_limit_have_run_a_job_is_taken_for_that() -> None:
    estimates, limited = Estimator(), make_class(limit_s=64.0)
    assert estimates.run_s(make_class()) is None
    assert estimates.run_s(limited) == 64.0 and estimates.run_mean_s(limited) is None
    for _ in range(ENOUGH_RUNS):
        estimates.record_run(make_class(), None, 5.0)
    assert estimates.run_s(limited) == 64.0 and estimates.run_mean_s(limited) == 5.0
    for _ in range(ENOUGH_RUNS - 1):
        estimates.record_run(limited, None, 9.0)
    assert estimates.run_s(limited) == 64.0
    estimates.record_run(limited, None, 9.0)
    assert estimates.run_s(limited) == 9.0


def test_jobs_of_the_same_limit_are_told_by_each_other() -> None:
    estimates = Estimator()
    for limit_s in (64.0, 256.0):
        for _ in range(ENOUGH_RUNS):
            estimates.record_run(make_class(limit_s=limit_s), None, limit_s / 4)
    assert [estimates.run_s(make_class(limit_s=limit_s)) for limit_s in (64.0, 256.0)] == [16.0, 64.0]
    assert estimates.run_s(make_class(limit_s=1024.0)) == 1024.0
    assert estimates.run_s(make_class(model="new", limit_s=64.0)) == 16.0
    for job_number in range(LIMITS_MAX + 1):
        estimates.record_run(make_class(limit_s=2.0**job_number), None, 1.0)
    ((_, model),) = estimates.models("a")
    assert len(model.whole.runs_by_limit) == LIMITS_MAX and 1.0 not in model.whole.runs_by_limit


# Kept and bounded.


def test_what_is_known_survives_in_plain_values() -> None:
    estimates = Estimator()
    jobs = (make_class(), make_class(model="m", size="1", need=8 * GIB), make_class(handler="b", model="m"))
    for job_number in range(20):
        for each in jobs:
            estimates.record_run(each, (job_number % 3 + 1) * GIB, job_number + 1.0)
            estimates.record_load(each.key, 1 * GIB + job_number, 2.0 + job_number)
    estimates.record_oom(jobs[2], 9 * GIB)
    again = Estimator()
    for handler, model in sorted(estimates.changed):
        dumped = estimates.dump(handler, model)
        assert dumped is not None
        again.load(dumped)
    assert again.changed == set()
    for each in jobs:
        assert again.need_bytes(each) == estimates.need_bytes(each)
        assert again.load_s(each.key) == estimates.load_s(each.key)
        assert again.resident_bytes(each.key) == estimates.resident_bytes(each.key)
        assert again.run_s(each) == estimates.run_s(each)
    # Of a handler as a whole the order in which its models ran is not kept.
    for q in (0.0, 1.0):
        assert again.run_s(make_class(model="new"), q) == estimates.run_s(make_class(model="new"), q)
    assert again.dump("b", "m") == estimates.dump("b", "m")


def test_another_form_is_not_taken_for_ours() -> None:
    with pytest.raises(ValueError, match="unknown format 99"):
        Estimator().load({"form": 99})


def test_models_and_sizes_without_end_are_not_remembered() -> None:
    estimates = Estimator()
    for job_number in range(MODELS_MAX + 1):
        estimates.record_run(make_class(model=str(job_number)), GIB, 1.0)
    assert estimates.dump("a", "0") is None and ("a", "0") in estimates.changed
    assert estimates.dump("a", "1") is not None
    names = [model for model, _ in estimates.models("a")]
    assert (names[0], len(names)) == (str(MODELS_MAX), MODELS_MAX)
    for job_number in range(SIZES_MAX + 1):
        estimates.record_run(make_class(model="m", size=str(job_number)), GIB, 1.0)
        estimates.record_run(make_class(model="m", size="0"), GIB, 1.0)
    ((_, model), *_) = estimates.models("a")
    assert len(model.sizes) == SIZES_MAX and "0" in model.sizes and "1" not in model.sizes

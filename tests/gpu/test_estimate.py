from __future__ import annotations

import json

from gpu.estimate import MARGIN_BYTES, MIB, Peaks

GIB = 1024 * MIB


def test_nothing_is_known_before_the_first_measure() -> None:
    assert Peaks().peak("a", "") is None


def test_a_promise_is_the_last_measured_peak_and_a_margin() -> None:
    peaks = Peaks()
    assert peaks.learn("a", "", 100 * MIB)
    assert peaks.peak("a", "") == 100 * MIB + MARGIN_BYTES
    assert peaks.learn("a", "", 10 * GIB)
    assert peaks.peak("a", "") == 10 * GIB + 10 * GIB // 20
    assert peaks.learn("a", "", 2 * GIB)
    assert peaks.peak("a", "") == 2 * GIB + int(2 * GIB * 0.05)


def test_on_a_device_that_the_peak_itself_fits_the_margin_is_what_there_is() -> None:
    peaks = Peaks()
    peaks.learn("a", "", 23 * GIB)
    assert peaks.peak("a", "", 24 * GIB) == 24 * GIB
    assert peaks.peak("a", "", 22 * GIB) == peaks.peak("a", "") == 23 * GIB + int(23 * GIB * 0.05)


def test_noise_does_not_move_the_promise() -> None:
    peaks = Peaks()
    peaks.learn("a", "", 1 * GIB)
    before = peaks.peak("a", "")
    assert not peaks.learn("a", "", 1 * GIB + 20 * MIB)
    assert not peaks.learn("a", "", 900 * MIB)
    assert peaks.peak("a", "") == before


def test_a_peak_that_eats_the_margin_moves_the_promise() -> None:
    peaks = Peaks()
    peaks.learn("a", "", 1 * GIB)
    assert peaks.learn("a", "", 1 * GIB + 40 * MIB)


def test_models_are_kept_apart_and_forgotten_alone() -> None:
    peaks = Peaks()
    peaks.learn("a", "x", 1 * GIB)
    peaks.learn("a", "y", 2 * GIB)
    peaks.forget("a", "x")
    peaks.forget("never", "seen")
    assert peaks.peak("a", "x") is None and peaks.peak("a", "y") is not None


def test_what_was_learned_survives_storing() -> None:
    peaks = Peaks()
    peaks.learn("a", "", 1 * GIB)
    peaks.learn("a", "m", 2 * GIB)
    again = Peaks.loads(json.loads(json.dumps(peaks.dumps())))
    assert again.dumps() == peaks.dumps() == {"a": {"": 1 * GIB, "m": 2 * GIB}}

"""Pure: what a client may ask for with a job."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.http.submission import NOT_SUPPORTED, UNSUPPORTED_FIELDS, parse_submission
from api.openapi.schema import JobRequest
from runner.bounds import SECONDS_MAX
from runner.jobs.job import Submission
from runner.jobs.retry import Backoff

#: 2026-01-01.
NOW = 1767225600.0


def read(**body: Any) -> Submission:
    found = parse_submission({"handler": "echo", **body}, "id", now=NOW)
    assert isinstance(found, Submission), found
    return found


def faults(**body: Any) -> dict[str, str]:
    found = parse_submission({"handler": "echo", **body}, "id", "/jobs/3", now=NOW)
    assert isinstance(found, list)
    return {fault["pointer"]: fault["message"] for fault in found}


@pytest.mark.parametrize(
    ("field", "given", "into", "expected"),
    [
        ("input", {"b": [1.5, "\u2028"]}, "input", '{"b":[1.5,"\u2028"]}'.encode()),
        ("queue", "gpu.a-1_x", "queue", "gpu.a-1_x"),
        ("priority", 0, "priority", 0),
        ("priority", "critical", "priority", 90),
        ("priority", "low", "priority", 30),
        ("timeout_s", 0.5, "timeout_s", 0.5),
        ("timeout_s", "5m", "timeout_s", 300.0),
        ("queue_timeout_s", "500ms", "queue_timeout_s", 0.5),
        ("delay_s", 0, "delay_s", 0.0),
        ("run_at", "2026-01-31T09:05:00Z", "run_at", 1769850300.0),
        ("run_at", "2026-01-31T10:05:00+01:00", "run_at", 1769850300.0),
        ("retries", 3, "retries", 3),
        ("backoff", [1, "2s"], "backoff", Backoff("list", steps_s=(1.0, 2.0), jitter=0.0)),
        ("vram", "6GiB", "vram_bytes", 6 * 2**30),
        ("vram", 1000, "vram_bytes", 1000),
        ("tenant", "acme-1", "tenant", "acme-1"),
        ("tags", ["a b", "ü"], "tags", ["a b", "ü"]),
        ("metadata", {"user": None}, "metadata", b'{"user":null}'),
        ("queue", None, "queue", None),
    ],
)
def test_options_are_read_with_units_resolved(field: str, given: Any, into: str, expected: Any) -> None:
    assert getattr(read(**{field: given}), into) == expected


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("queue", "a/b"), ("queue", "a\x00"), ("queue", ""), ("queue", "a" * 101), ("queue", 7),
        ("tenant", ""), ("tenant", "a b"), ("tenant", 1), ("tenant", "a" * 101),
        ("priority", 101), ("priority", -1), ("priority", True), ("priority", "urgent"), ("priority", 1.5),
        ("timeout_s", 0), ("timeout_s", -1), ("timeout_s", "soon"), ("timeout_s", True), ("timeout_s", 1e300),
        ("delay_s", -1), ("delay_s", []), ("run_at", "tomorrow"), ("run_at", 5), ("run_at", "0001-01-01"),
        ("retries", -1), ("retries", 1.0), ("retries", True), ("backoff", "x"), ("backoff", []),
        ("backoff", {"kind": "wild"}), ("vram", 0), ("vram", "6 apples"), ("vram", 2**63),
        ("tags", "a"), ("tags", [1]), ("tags", ["a\x00"]), ("tags", [""]), ("metadata", []),
        ("metadata", "x"), ("colour", 1), ("han/dler", 1),
        ("timeout_s", "3661d"), ("queue_timeout_s", 1e9), ("delay_s", 1e12),
        ("run_at", "2036-01-09T00:00:01Z"), ("run_at", "9999-12-31T23:59:59.9999999Z"),
        ("run_at", "9999-12-31T23:59:59-23:59"),
        ("backoff", 1e18), ("backoff", "3661d"), ("backoff", [1, 1e18]), ("backoff", {"base_s": 1e18}),
        ("backoff", {"max_s": 1e18}),
    ],
)  # fmt: skip
def test_a_bad_option_is_named_by_its_pointer(field: str, given: Any) -> None:
    assert list(faults(**{field: given})) == [f"/jobs/3/{field.replace('/', '~1')}"]


def test_a_start_may_be_ten_years_ahead() -> None:
    assert read(run_at="2036-01-09T00:00:00Z").run_at == NOW + SECONDS_MAX


def test_all_faults_are_told_at_once() -> None:
    assert set(faults(handler=None, queue="a b", retries="x", colour=1)) == {
        "/jobs/3/handler",
        "/jobs/3/queue",
        "/jobs/3/retries",
        "/jobs/3/colour",
    }


@pytest.mark.parametrize("field", sorted(UNSUPPORTED_FIELDS))
def test_fields_of_later_versions_say_so(field: str) -> None:
    assert faults(**{field: 1}) == {f"/jobs/3/{field}": NOT_SUPPORTED}


def test_a_start_is_given_once() -> None:
    assert list(faults(run_at="2026-01-31T09:05:00Z", delay_s=5)) == ["/jobs/3/delay_s"]


@pytest.mark.parametrize(
    "body",
    [
        {"handler": "a"},
        {"handler": "a", "priority": "high", "backoff": {"kind": "linear"}, "tags": ["x"], "vram": "6GiB"},
        {"handler": "a", "priority": "urgent"},
        {"handler": "a", "backoff": {"kind": "wild"}},
        {"handler": "a", "backoff": {"base_s": 1e18}},
        {"handler": "a", "backoff": {"max_s": 1e18}},
        {"handler": "a", "retries": -1},
        {"handler": "a", "retries": 1001},
        {"handler": "a", "timeout_s": 0},
        {"handler": "a", "timeout_s": 1e9},
        {"handler": "a", "delay_s": 0},
        {"handler": "a", "priority": 101},
        {"handler": "a", "backoff": [1] * 1000},
        {"handler": "a", "backoff": [1] * 1001},
        {"handler": "a", "backoff": [1e9]},
        {"handler": "a", "vram": 0},
        {"handler": "a", "vram": 2**62},
        {"handler": "a", "vram": 2**62 + 1},
        {"handler": "a", "vram": "9" * 65},
        {"handler": "a", "tags": ["x"] * 101},
        {"handler": "a b"},
        {"handler": "a", "unique": {}},
        {"input": 1},
    ],
)
def test_the_documented_model_agrees_with_what_is_taken(body: dict[str, Any]) -> None:
    try:
        JobRequest.model_validate(body, strict=True)
        documented = True
    except ValidationError:
        documented = False
    assert isinstance(parse_submission(body, "id", now=NOW), Submission) is documented

"""Pure: query strings and `Prefer`."""

from __future__ import annotations

import base64

import pytest
from starlette.requests import Request

from api.http.query_params import allow_query, event_types, parse_job_query, prefer_wait_s, resume_cursor
from runner.errors import ValidationFailed
from runner.jobs import cursor
from runner.jobs.job_query import JobQuery


def request(query: str = "", **headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "query_string": query.encode(), "headers": pairs})


#: 2026-01-01.
NOW = 1767225600.0


def query(text: str) -> JobQuery:
    return parse_job_query(request(text), now=NOW)


def pointers(refused: pytest.ExceptionInfo[ValidationFailed]) -> list[str]:
    return [fault["pointer"] for fault in refused.value.detail["errors"]]


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ("wait=5", 5), ("WAIT = 0", 0), ("respond-async, wait=300", 300), ("wait=301", 300), ('wait="7"', 7),
        ("wait=-1", None), ("wait=soon", None), ("await=5", None), ("wait=1.5", None), ("", None),
    ],
)  # fmt: skip
def test_the_wait_is_read_and_bounded(prefer: str, expected: int | None) -> None:
    assert prefer_wait_s(request(prefer=prefer)) == expected


def test_filters_become_a_query() -> None:
    found = query(
        "state=queued&state=running&queue=a&tag=x&tenant=t&tenant=u&limit=500&order=asc&created_after=2026-01-31T09:05:00Z"
        "&input.a.b=1&input.c=text&input.d=%22q%22&finished_before=2026-01-31T10:05:00+01:00"
        "&cursor=" + base64.urlsafe_b64encode(b"n42").decode().rstrip("=")
    )
    assert (found.states, found.queues, found.tags) == (["queued", "running"], ["a"], ["x"])
    assert (found.limit, found.order, found.cursor, found.tenants) == (500, "asc", 42, ["t", "u"])
    assert found.inputs == [("a.b", b"1"), ("c", b'"text"'), ("d", b'"q"')]
    assert found.created_after == found.finished_before == 1769850300.0


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("run_id=x", "/run_id"), ("colour=x", "/colour"), ("limit=0", "/limit"), ("limit=501", "/limit"),
        ("limit=ten", "/limit"), ("state=done", "/state"), ("reason=none", "/reason"), ("order=up", "/order"),
        ("cursor=!!!", "/cursor"), ("cursor=42", "/cursor"), ("created_after=now", "/created_after"),
        ("queue=a%00b", "/queue"), ("tag=%00", "/tag"), ("input.a=%00", "/input.a"), ("input.=1", "/input."),
        (f"input.a={2**63}", "/input.a"), (f"input.a={-(2**63) - 1}", "/input.a"),
        (f"input.a={10**30}", "/input.a"), ("input.a%00b=1", "/input.a\0b"), ("input..=1", "/input.."),
        ("&".join(f"input.f{n}=1" for n in range(21)), "/input"), ("input.a=1&" * 21, "/input"),
        ("tag=x&" * 501, "/tag"), (f"cursor={cursor.encode(2**63)}", "/cursor"),
        ("created_after=2036-01-09T00:00:01Z", "/created_after"),
        ("finished_before=9999-12-31T23:59:59-23:59", "/finished_before"),
    ],
)  # fmt: skip
def test_a_bad_filter_is_named(text: str, pointer: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        query(text)
    assert pointers(refused) == [pointer]


def test_a_path_of_an_input_is_bounded() -> None:
    """A part of thousands of digits is no integer for Python, and SQLite quotes no path with a NUL."""
    for path in ("9" * 4_400, "a." * 1_000 + "b", "a" * 201):
        with pytest.raises(ValidationFailed):
            query(f"input.{path}=1")
    assert query("&".join(f"input.f{n}=1" for n in range(20))).inputs is not None
    assert query(f"input.{'9' * 200}=1").inputs == [("9" * 200, b"1")]
    assert query(f"input.a={2**63 - 1}&input.b={-(2**63)}").inputs == [
        ("a", b"9223372036854775807"),
        ("b", b"-9223372036854775808"),
    ]


def test_a_stream_goes_on_after_what_the_browser_saw_last() -> None:
    assert resume_cursor(request()) == 0
    assert resume_cursor(request("after=3")) == 3
    assert resume_cursor(request("after=3", last_event_id="7")) == 7


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "\u0661", "99999999999999999999", "1 2"])
def test_a_malformed_cursor_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        resume_cursor(request(f"after={text}", last_event_id="x"))
    assert pointers(refused) == ["/Last-Event-ID", "/after"]


def test_types_may_be_parted_by_commas_or_repeated() -> None:
    assert event_types(request()) is None
    assert event_types(request("types=log,done&types=output")) == frozenset({"log", "done", "output"})
    with pytest.raises(ValidationFailed):
        event_types(request("types=error"))


def test_strange_parameters_are_refused() -> None:
    allow_query(request("after=1"), "after")
    with pytest.raises(ValidationFailed) as refused:
        allow_query(request("after=1&ticket=x&b=2"), "after")
    assert pointers(refused) == ["/ticket", "/b"]

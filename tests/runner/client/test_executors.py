"""Pure: what is asked to have a handler loaded, and for how long."""

from __future__ import annotations

import json

import pytest

from runner.client import executors
from runner.client.http_call import HttpCall, HttpResponse
from runner.errors import NotLoaded
from tests.runner.client.test_operations import Clock, answered, perform

LOADING = {"state": "loading", "message": "loading on gpu0"}


def test_a_load_is_asked_for_until_it_is_there() -> None:
    answers = [answered(LOADING, 202), answered({"state": "loaded"})]
    operation = executors.load("paint", "xl", None, until=None, clock=Clock())
    found, calls = perform(operation, lambda _: answers.pop(0))
    assert found == {"state": "loaded"}
    assert [call.path for call in calls] == ["/v1/handlers/paint/load"] * 2
    assert json.loads(calls[0].body or b"") == {"model": "xl"}
    assert calls[0].headers["Prefer"] == "wait=60" and calls[0].timeout_s > 60


def test_when_the_time_is_over_it_is_told_how_far_it_is() -> None:
    clock = Clock()

    def answer(call: HttpCall) -> HttpResponse:
        assert call.headers["Prefer"] == "wait=3"
        clock.now += 2.5
        return answered(LOADING, 202)

    with pytest.raises(TimeoutError, match="loading on gpu0"):
        perform(executors.load("paint", None, "gpu0", until=2.5, clock=clock), answer)


def test_a_load_that_failed_raises_its_error() -> None:
    problem = {"status": 409, "code": "not_loaded", "detail": "no weights", "error": {"code": "load_error"}}
    with pytest.raises(NotLoaded, match="no weights") as caught:
        perform(
            executors.load("paint", None, None, until=None, clock=Clock()),
            lambda _: answered(problem, 409),
        )
    assert caught.value.detail["error"] == {"code": "load_error"} and caught.value.exit_code == 1


def test_an_unload_says_what_goes() -> None:
    found, calls = perform(executors.unload("a b", None, "gpu0"), lambda _: answered({"executors": []}, 202))
    assert found == {"executors": []}
    assert calls[0].path == "/v1/handlers/a%20b/unload" and json.loads(calls[0].body or b"") == {
        "device": "gpu0"
    }

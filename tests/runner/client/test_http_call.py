"""Pure: what questions look like and what answers mean."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import BaseModel

from runner import errors
from runner.client.http_call import HttpResponse, encode, problem_error, raise_problem


class Prompt(BaseModel):
    text: str


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("unknown_handler", 404, errors.UnknownHandler),
        ("queue_full", 429, errors.QueueFull),
        ("unsatisfiable", 422, errors.Unsatisfiable),
        ("fenced", 503, errors.Fenced),
        ("damaged", 410, errors.JobDamaged),
        ("store_unavailable", 503, errors.StoreUnavailable),
        ("invented_later", 409, errors.Conflict),
        ("invented_later", 418, errors.RunnerError),
    ],
)
def test_a_problem_becomes_the_error_of_its_code_or_else_of_its_status(
    code: str, status: int, kind: type[errors.RunnerError]
) -> None:
    error = problem_error({"code": code, "status": status, "detail": "no"})
    assert type(error) is kind
    assert error.message == "no"
    assert error.detail["code"] == code


def test_a_validation_problem_names_every_pointer() -> None:
    faults = [{"pointer": "/input/steps", "message": "500 is too large"}]
    error = problem_error(
        {"code": "validation_error", "status": 422, "detail": "not valid.", "errors": faults}
    )
    assert error.message == "not valid; /input/steps: 500 is too large"
    assert error.detail["errors"] == faults


def test_retry_after_is_kept() -> None:
    document = json.dumps({"code": "rate_limited"}).encode()
    headers = {"content-type": "application/problem+json", "retry-after": "7"}
    with pytest.raises(errors.TooManyRequests) as caught:
        raise_problem(HttpResponse(429, headers, document))
    assert caught.value.detail["retry_after_s"] == 7.0


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b""])
def test_an_answer_of_some_other_server_is_told_as_such(body: bytes) -> None:
    with pytest.raises(errors.RunnerError, match="not from a runner server"):
        raise_problem(HttpResponse(404, {"content-type": "application/json"}, body))


def test_models_may_stand_anywhere_in_an_input() -> None:
    assert encode({"all": [Prompt(text="ä")]}) == '{"all":[{"text":"ä"}]}'.encode()


@pytest.mark.parametrize(
    ("value", "error"), [(math.nan, ValueError), ("\ud800", ValueError), (object(), TypeError)]
)
def test_what_json_cannot_say_is_refused_before_it_is_sent(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode(value)

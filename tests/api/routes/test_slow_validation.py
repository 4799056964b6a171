"""Inputs that take long to validate hold up no other request of their front."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from runner.handlers.spec import HandlerOptions
from runner.protocol import front as front_protocol
from tests.api.fake_coordinator import RunningFront, running_front, spec
from tests.api.validation.slow_inputs import COUNTS, INT_LIST, UNION, chain

MIB = 1024 * 1024
JSON = {"content-type": "application/json"}
#: Longest answer of the front to another request, in seconds.
ANSWER_S = 0.25
pytestmark = pytest.mark.timed


@pytest.fixture(scope="module")
def front() -> Iterator[RunningFront]:
    with validating_front() as started:
        yield started


@contextmanager
def validating_front(tree: Path | None = None) -> Iterator[RunningFront]:
    with running_front(tree=tree, body_max_bytes=16 * MIB, bulk_max_bytes=64 * MIB) as started:
        schemas = {"ints": INT_LIST, "counts": COUNTS, "union": UNION}
        specs = [spec(name, input_schema=msgspec.json.encode(schema)) for name, schema in schemas.items()]
        options = HandlerOptions(model_by="model")
        specs += [spec("any"), spec("named", options=options)]
        started.fake.send(front_protocol.HandlersUpdate(specs, False))
        yield started


class Pulse:
    """Reads /healthz in a thread as long as the block lasts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers_s: list[float] = []

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=60) as client:
            while not self._ended.wait(0.01):
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                self.answers_s.append(time.monotonic() - began)


def post(front: RunningFront, body: Any, path: str = "/v1/jobs") -> tuple[httpx2.Response, float]:
    text = msgspec.json.encode(body)
    with httpx2.Client(base_url=front.url, timeout=60) as client:
        began = time.monotonic()
        answer = client.post(path, content=text, headers=JSON)
        return answer, time.monotonic() - began


@pytest.mark.parametrize(
    ("handler", "input"),
    [
        # 14.3 MiB of JSON text.
        ("ints", lambda: ["x"] * 3_740_000),
        ("union", lambda: chain(28, "x")),
        ("union", lambda: chain(60, "x")),
        ("counts", lambda: {f"key{number}": "x" for number in range(500_000)}),
    ],
)
def test_a_slow_input_is_refused_and_delays_no_other_request(
    front: RunningFront, handler: str, input: Any
) -> None:
    body = {"handler": handler, "input": input()}
    with Pulse(front.url) as pulse:
        answer, took_s = post(front, body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "validation_timeout"), problem
    assert problem["errors"][0]["pointer"] == "/input"
    assert took_s < 3.0
    assert max(pulse.answers_s) < ANSWER_S


def test_a_large_valid_input_is_accepted(front: RunningFront) -> None:
    with Pulse(front.url) as pulse:
        answer, _ = post(front, {"handler": "ints", "input": list(range(10**6, 10**6 + 1_800_000))})
    assert answer.status_code == 202
    assert max(pulse.answers_s) < 2 * ANSWER_S


def test_faults_of_a_large_input_are_still_named(front: RunningFront) -> None:
    ints: list[Any] = list(range(200_000))
    ints[199_999] = "x"
    answer, _ = post(front, {"handler": "ints", "input": ints})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": "/input/199999", "message": '"x" is not of type "integer"'}
    ]


def test_an_input_of_a_branching_schema_is_validated(front: RunningFront) -> None:
    assert post(front, {"handler": "union", "input": chain(3, None)})[0].status_code == 202
    answer, _ = post(front, {"handler": "union", "input": chain(3, 1)})
    assert answer.json()["code"] == "validation_error"
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/input/next"]


def test_a_large_input_is_stored_as_a_small_one_would_be(front: RunningFront) -> None:
    text = b'{"handler": "any", "input": {"a" :1.50, "a": [%s], "b": "\\u00e9"}}' % (b" 1," * 300_000 + b"2")
    with httpx2.Client(base_url=front.url, timeout=60) as client:
        answer = client.post("/v1/jobs", content=text, headers=JSON)
    assert answer.status_code == 202
    stored = front.fake.jobs[answer.json()["id"]].input
    assert stored == msgspec.json.encode({"a": [1] * 300_000 + [2], "b": "\u00e9"})


@pytest.mark.parametrize(
    ("input", "pointer", "message"),
    [
        (b"[%s 1e999]" % (b"1," * 400_000), "/input", "is not valid JSON"),
        (b"[%s %d]" % (b"1," * 400_000, 2**70), "/input/400000", "beyond 64 bits"),
        (b"[%s %s%s]" % (b"1," * 400_000, b"[" * 63, b"]" * 63), "/input", "nested deeper"),
        (b'["%s"]' % (b"\xff" * 800_000), "/input", "not valid UTF-8"),
        (b"[%s" % (b"1," * 400_000), "", "is not valid JSON"),
    ],
)
def test_a_large_input_is_held_to_strict_json(
    front: RunningFront, input: bytes, pointer: str, message: str
) -> None:
    with httpx2.Client(base_url=front.url, timeout=60) as client:
        answer = client.post("/v1/jobs", content=b'{"handler": "any", "input": %s}' % input, headers=JSON)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == pointer and message in fault["message"]


def test_traits_of_a_large_input_are_read(front: RunningFront) -> None:
    padding = ["x"] * 200_000
    answer, _ = post(front, {"handler": "named", "input": {"model": "tiny", "padding": padding}})
    assert answer.status_code == 202
    submit = [asked for asked in front.fake.asked if isinstance(asked, front_protocol.SubmitJobs)][-1]
    assert submit.jobs[0].model == "tiny"
    answer, _ = post(front, {"handler": "named", "input": {"model": {}, "padding": padding}})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/input/model"]


def test_a_large_bulk_is_read_job_by_job(front: RunningFront) -> None:
    jobs: list[Any] = [{"handler": "ints", "input": list(range(1000))}] * 700
    jobs[5] = {"handler": "ints", "input": ["x"]}
    jobs[6] = 7
    jobs[7] = {"handler": "ints", "input": list(range(10**6, 10**6 + 200_000))}
    with Pulse(front.url) as pulse:
        answer, _ = post(front, {"jobs": jobs}, "/v1/jobs/bulk")
    results = answer.json()["jobs"]
    refused = {index: result for index, result in enumerate(results) if "code" in result}
    assert [refused[index]["errors"][0]["pointer"] for index in refused] == ["/jobs/5/input/0", "/jobs/6"]
    assert max(pulse.answers_s) < ANSWER_S
    answer, _ = post(front, {"jobs": jobs, "more": 1}, "/v1/jobs/bulk")
    assert answer.json()["errors"][0]["pointer"] == "/more"
    answer, _ = post(front, {"jobs": {"padding": jobs}}, "/v1/jobs/bulk")
    assert answer.json()["errors"][0]["pointer"] == "/jobs"


@pytest.mark.slow
def test_a_bulk_of_slow_inputs_is_bounded_as_a_whole(front: RunningFront) -> None:
    slow = {"handler": "union", "input": chain(50, "x")}
    jobs = [slow] * 100 + [{"handler": "ints", "input": [1]}]
    with Pulse(front.url) as pulse:
        answer, took_s = post(front, {"jobs": jobs}, "/v1/jobs/bulk")
    results = answer.json()["jobs"]
    assert [result.get("code") for result in results] == ["validation_timeout"] * 100 + [None]
    assert results[3]["errors"][0]["pointer"] == "/jobs/3/input"
    assert took_s < 20.0
    assert max(pulse.answers_s) < ANSWER_S


def test_many_wrong_inputs_of_a_bulk_delay_no_other_request(front: RunningFront) -> None:
    jobs = [{"handler": "ints", "input": ["x"] * 900}] * 150
    with Pulse(front.url) as pulse:
        answer, _ = post(front, {"jobs": jobs}, "/v1/jobs/bulk")
    codes = {result["code"] for result in answer.json()["jobs"]}
    assert "validation_error" in codes and codes <= {"validation_error", "validation_timeout"}
    assert max(pulse.answers_s) < ANSWER_S


def test_slow_inputs_leave_neither_descriptors_nor_processes(front: RunningFront) -> None:
    pid = front.child.pid

    def count() -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    post(front, {"handler": "union", "input": chain(3, 1)})
    before = count()
    for _ in range(2):
        post(front, {"handler": "union", "input": chain(40, "x")})
    post(front, {"handler": "union", "input": chain(3, 1)})
    # A connection of a test may still be closing.
    deadline = time.monotonic() + 10
    while count() > before + 1:
        assert time.monotonic() < deadline, "descriptors are left"
        time.sleep(0.01)

"""Effect: `runner submit` and `runner run` send each option of a job, by the real program."""

from __future__ import annotations

from typing import Any

import pytest

from runner.cli.submit import JobOptionTexts
from runner.client.operations import JobOptions
from tests.runner.cli.cli_process import runner
from tests.runner.client.fake_server import CannedReply, FakeServer, Script, fake_server, job, problem

#: Per option of a job: its words on the command line, and what they make of the request.
OPTIONS: dict[str, tuple[tuple[str, ...], object]] = {
    "queue": (("--queue", "night"), "night"),
    "priority": (("--priority", "80"), 80),
    "timeout": (("--timeout", "5m"), 300.0),
    "queue_timeout": (("--queue-timeout", "1h"), 3600.0),
    "run_at": (("--run-at", "2026-01-31T09:05:00Z"), "2026-01-31T09:05:00Z"),
    "delay": (("--delay", "2s"), 2.0),
    "retries": (("--retries", "3"), 3),
    "backoff": (("--backoff", "1,5,30"), [1.0, 5.0, 30.0]),
    "vram": (("--vram", "6GiB"), 6 << 30),
    "tenant": (("--tenant", "team-a"), "team-a"),
    "tags": (("--tag", "a", "--tag", "b"), ["a", "b"]),
    "metadata": (("--metadata", "ticket=7"), {"ticket": "7"}),
}
SECONDS = {"timeout", "queue_timeout", "delay"}


ROUTES: dict[tuple[str, str], Script] = {
    ("POST", "/v1/jobs"): CannedReply(202, job("queued")),
    ("GET", "/v1/queues"): CannedReply(200, {"data": [{"name": "default"}]}),
    ("GET", "/v1/handlers/echo"): CannedReply(
        200, {"input_schema": {"type": "object", "properties": {"times": {"type": "integer"}}}}
    ),
}


def posted(server: FakeServer) -> Any:
    (body,) = [one.body for one in server.asked if one.method == "POST"]
    return body


def test_text_becomes_a_number_where_the_handler_takes_no_text() -> None:
    with fake_server(ROUTES) as server:
        ended = runner("submit", "echo", "times=5", "text=5", "--queue", "default", url=server.url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert posted(server)["input"] == {"times": 5, "text": "5"}
        assert runner("submit", "echo", "text=hello", url=server.url).returncode == 0
    assert [one.path for one in server.asked] == [
        "/v1/handlers/echo",
        "/v1/queues",
        "/v1/jobs",
        "/v1/jobs",
    ]


def test_an_unknown_handler_is_named_by_the_submit() -> None:
    missing = problem(404, "unknown_handler", "there is no handler 'nope'")
    with fake_server({("GET", "/v1/handlers/nope"): missing, ("POST", "/v1/jobs"): missing}) as server:
        ended = runner("submit", "nope", "times=5", url=server.url)
    assert (ended.returncode, ended.stderr) == (3, "runner: there is no handler 'nope'\n")


def test_commands_have_the_options_of_the_client() -> None:
    assert list(JobOptionTexts.__annotations__) == list(JobOptions.__annotations__) == list(OPTIONS)


@pytest.mark.parametrize("command", ["submit", "run"])
def test_options_reach_the_server(command: str) -> None:
    words = [word for option_words, _ in OPTIONS.values() for word in option_words]
    with fake_server(ROUTES) as server:
        # `run` then follows a job that this server does not have.
        ended = runner(command, "echo", *words, url=server.url)
        body = posted(server)
    assert "queue 'night' is new" in ended.stderr
    sent = {f"{name}_s" if name in SECONDS else name: value for name, (_, value) in OPTIONS.items()}
    assert body == {"handler": "echo", "input": {}} | sent


@pytest.mark.parametrize("command", ["submit", "run"])
def test_warnings_about_the_input_are_shown(command: str) -> None:
    document = job("queued") | {"warnings": ["input.stepz is ignored"]}
    with fake_server({("POST", "/v1/jobs"): CannedReply(202, document)}) as server:
        done = runner(command, "echo", "stepz=1", url=server.url)
    assert "runner: warning: input.stepz is ignored" in done.stderr.splitlines()
    assert "stepz" not in done.stdout

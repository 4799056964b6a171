"""Effect: `runner submit` and `runner run` send each option of a job, by the real program."""

from __future__ import annotations

import pytest

from runner.cli.submit import JobOptionTexts
from runner.client.operations import JobOptions
from tests.runner.cli.cli_process import runner
from tests.runner.client.fake_server import CannedReply, fake_server, job

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


def test_commands_have_the_options_of_the_client() -> None:
    assert list(JobOptionTexts.__annotations__) == list(JobOptions.__annotations__) == list(OPTIONS)


@pytest.mark.parametrize("command", ["submit", "run"])
def test_options_reach_the_server(command: str) -> None:
    words = [word for option_words, _ in OPTIONS.values() for word in option_words]
    with fake_server({("POST", "/v1/jobs"): CannedReply(202, job("queued"))}) as server:
        # `run` then follows a job that this server does not have.
        runner(command, "echo", *words, url=server.url)
        body = server.asked[0].body
    sent = {f"{name}_s" if name in SECONDS else name: value for name, (_, value) in OPTIONS.items()}
    assert body == {"handler": "echo", "input": {}} | sent

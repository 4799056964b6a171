"""Whose lines they are that a child prints after its job."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runner.protocol.worker import RunAttempts
from tests.runner.worker.fake_coordinator import StubCoordinator, attempt


def texts(fake: StubCoordinator, job: str) -> list[Any]:
    return [fields["text"] for kind, fields in fake.events_of(job) if kind == "log"]


def test_lines_of_a_child_that_a_job_left_behind_are_logged_by_the_worker(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def scenario() -> None:
        async with StubCoordinator() as fake:
            fake.load(1, "leave", attempt("alone", "leave", "alone"))
            await fake.wait_for_end("alone")
            for name in ("start", "wait", "stop", "after"):
                fake.send(RunAttempts(1, [attempt(name, "leave", name)]))
                await fake.wait_for_end(name)
            assert {name: texts(fake, name) for name in ("alone", "start", "wait", "stop", "after")} == {
                "alone": ["alone"],
                "start": ["start"],
                # What this job prints by a descriptor itself can't be told from what the child prints.
                "wait": [],
                "stop": [],
                "after": ["after"],
            }

    asyncio.run(scenario())
    logged = capfd.readouterr().err
    assert "whose earlier jobs left processes behind, stdout: stray" in logged
    assert "left processes behind, stdout: wait" in logged

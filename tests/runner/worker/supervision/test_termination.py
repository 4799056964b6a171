"""What is done to an executor that will not end, with processes that feel nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from typing import cast

from runner.protocol.worker import RaiseCancelled, RequestCancel, to_executor_decoder
from runner.worker.processes.cleanup import STUCK_S, DescendantCleanup
from runner.worker.processes.executor_process import ExecutorProcess
from runner.worker.supervision.crash_report import EndCause
from runner.worker.supervision.termination import Termination


class UnresponsiveProcess:
    """An executor process on which no signal has an effect."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.sent: list[object] = []

    def signal_group(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def send(self, messages: list[bytes]) -> None:
        self.sent += map(to_executor_decoder.decode, messages)


class TerminationScenario:
    def __init__(self) -> None:
        self.numb = UnresponsiveProcess()
        self.recalls = 0
        self.looks = 0
        self.stuck = 0
        self.ending = Termination(
            cast(ExecutorProcess, self.numb),
            recall=self._recall,
            wake_at=lambda mono: None,
            before_kill=self._before_kill,
            on_stuck=self._on_stuck,
        )

    def _recall(self) -> None:
        self.recalls += 1

    def _before_kill(self) -> None:
        # While it lives: what it started is found through it.
        assert self.looks or signal.SIGKILL not in self.numb.signals
        self.looks += 1

    def _on_stuck(self) -> None:
        self.stuck += 1


def ended_by(scenario: TerminationScenario, key: tuple[str, int]) -> tuple[str, str] | None:
    ladder = scenario.ending.on_attempt_ended(key)
    return None if ladder is None else (ladder.code, ladder.message)


def test_a_negative_grace_kills_at_once_and_blames_no_other_attempt() -> None:
    scenario = TerminationScenario()
    scenario.ending.end_attempts([("job", 1)], "cancelled", "now", -1.0)
    assert (scenario.numb.signals, scenario.looks, scenario.ending.cause) == ([signal.SIGKILL], 1, None)
    assert scenario.ending.is_closing
    assert ended_by(scenario, ("job", 1)) == ("cancelled", "now")
    assert scenario.ending.on_attempt_ended(("job", 2)) is None


def test_unkillable_executor_is_written_off_in_time() -> None:
    scenario = TerminationScenario()
    scenario.ending.kill(EndCause("timeout", "too long"))
    now = time.monotonic()
    scenario.ending.run_due(now + STUCK_S - 0.5)
    assert (scenario.stuck, scenario.numb.signals) == (0, [signal.SIGKILL])
    scenario.ending.run_due(now + STUCK_S + 0.1)
    scenario.ending.run_due(now + 2 * STUCK_S)
    assert (scenario.stuck, scenario.ending.next_at) == (1, None)


def test_ladder_climbs_to_the_end_and_recalls_what_waits() -> None:
    scenario = TerminationScenario()
    scenario.ending.end_attempts([("a", 1)], "timeout", "too long", 0.0)
    assert scenario.numb.sent == [RequestCancel("a", 1, "timeout")] and not scenario.ending.is_closing
    scenario.ending.run_due(time.monotonic() + 2.0)
    assert scenario.numb.sent[1:] == [RaiseCancelled("a", 1)] and scenario.recalls == 1
    assert scenario.numb.signals == [signal.SIGTERM, signal.SIGKILL]
    assert ended_by(scenario, ("a", 1)) == ("timeout", "too long")


def test_flag_that_was_heeded_costs_no_executor() -> None:
    scenario = TerminationScenario()
    scenario.ending.end_attempts([("a", 1)], "cancelled", "enough", 0.0)
    assert scenario.ending.on_attempt_ended(("b", 1)) is None
    assert ended_by(scenario, ("a", 1)) == ("cancelled", "enough")
    scenario.ending.run_due(time.monotonic() + 9.0)
    assert (scenario.numb.signals, scenario.ending.is_closing, scenario.ending.next_at) == ([], False, None)


def test_first_cause_is_the_one_that_is_told() -> None:
    scenario = TerminationScenario()
    scenario.ending.expect_exit(EndCause("unloaded", "idle"), 5.0)
    scenario.ending.run_due(time.monotonic() + 6.0)
    scenario.ending.kill(EndCause("memory_exceeded", "too much"))
    assert scenario.ending.cause == EndCause("unloaded", "idle")
    assert signal.SIGKILL in scenario.numb.signals


def test_remembered_process_is_found_without_any_mark() -> None:
    async def scenario() -> None:
        environment = {"PATH": os.environ["PATH"]}
        stranger = subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
        child = subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True)
        left = DescendantCleanup(2**22, "nobody/1")
        left.track([child.pid])
        cleared: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        left.kill_all(asyncio.get_running_loop(), is_alone=lambda: False, on_done=cleared.set_result)
        assert await asyncio.wait_for(cleared, 5) is True
        child.wait()
        assert stranger.poll() is None
        stranger.kill()
        stranger.wait()

    asyncio.run(scenario())

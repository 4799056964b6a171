"""Who asks for a reload, what is asked for meanwhile, and what is told of one that takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from runner.coordinator.reload.changes import ReloadResult
from runner.coordinator.reload.handler_activator import HandlerActivator
from runner.coordinator.reload.reloader import HandlerReloader
from runner.coordinator.runtime.submission_gate import SubmissionGate
from runner.discovery.handler_registry import HandlerRegistry
from runner.errors import ReloadRefused, ShuttingDown
from runner.handlers.overrides import Overrides
from runner.protocol import front as front_protocol
from tests.runner.coordinator.lifecycle_harness import LifecycleHarness, run
from tests.runner.discovery.test_handler_registry import ECHO, handler_registry, write

SLOW = "import os, time\nwhile not os.path.exists({!r}): time.sleep(0.01)\n"


class Asker:
    """A front, as far as answers go."""

    def __init__(self) -> None:
        self.replies: list[front_protocol.Reply] = []

    def send(self, message: bytes) -> None:
        reply = front_protocol.to_front_decoder.decode(message)
        assert isinstance(reply, front_protocol.Reply)
        self.replies.append(reply)


class ReloadScenario:
    """The reloads of one source, and what became of its executors."""

    def __init__(self, harness: LifecycleHarness, found: HandlerRegistry, answer_s: float) -> None:
        self.handler_registry = found
        self.asker = Asker()
        self.retired: list[tuple[str, bool]] = []
        self.in_force = 0
        self.gate = SubmissionGate()
        self.reloads = HandlerReloader(
            handler_registry=found,
            handler_activator=HandlerActivator(
                handler_registry=found,
                overrides=Overrides({}),
                queue_manager=harness.queue_manager,
                values=harness.values,
                on_change=self._on_change,
            ),
            queue_manager=harness.queue_manager,
            retire=lambda handler, *, is_replaced: self.retired.append((handler, is_replaced)),
            read_overrides=lambda: Overrides({}),
            gate=self.gate,
            reply_wait_s=answer_s,
        )

    def _on_change(self, _: bytes) -> None:
        self.in_force += 1

    async def answer(self) -> tuple[int, ReloadResult]:
        await self.reloads.handle_request(self.asker, front_protocol.ReloadHandlers(7))
        reply = self.asker.replies.pop()
        assert reply.request_id == 7
        return reply.status, msgspec.json.decode(reply.body, type=ReloadResult)


def run_scenario(
    folder: Path, body: Callable[[ReloadScenario], Awaitable[None]], *, answer_s: float = 20.0
) -> None:
    async def whole(harness: LifecycleHarness) -> None:
        found = handler_registry(folder, "a.py")
        await found.describe_all()
        harness.queue_manager.set_handlers(dict(found.specs))
        await body(ReloadScenario(harness, found, answer_s))

    run(whole)


def test_who_asks_while_one_is_under_way_shares_the_next(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def body(scenario: ReloadScenario) -> None:
        write(tmp_path, a=ECHO + SLOW.format(str(gate)))
        first = scenario.reloads.request_reload()
        await asyncio.sleep(0)
        others = [scenario.reloads.request_reload() for _ in range(5)]
        assert first not in others and len(set(others)) == 1
        gate.touch()
        assert (await first).changed == ["echo"]
        assert (await others[0]).unchanged == ["echo"]
        assert scenario.in_force == 2
        assert scenario.retired == [("echo", True)]

    run_scenario(write(tmp_path, a=ECHO), body)


def test_one_that_takes_long_is_told_as_such_and_goes_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def body(scenario: ReloadScenario) -> None:
        write(tmp_path, a=ECHO + SLOW.format(str(gate)))
        assert await scenario.answer() == (202, ReloadResult(describing=True))
        assert scenario.in_force == 0
        under_way = scenario.reloads._current
        assert under_way is not None
        gate.touch()
        await under_way
        assert scenario.retired == [("echo", True)]

    run_scenario(write(tmp_path, a=ECHO), body, answer_s=0.05)


def test_what_breaks_lets_a_loading_executor_end_its_first_job(tmp_path: Path) -> None:
    async def body(scenario: ReloadScenario) -> None:
        write(tmp_path, a="1/0")
        assert await scenario.answer() == (200, ReloadResult(broken=["echo"]))
        write(tmp_path, a=ECHO.replace("'echo'", "'other'"))
        assert await scenario.answer() == (200, ReloadResult(added=["other"], removed=["echo"]))
        assert scenario.retired == [("echo", False), ("echo", False)]

    run_scenario(write(tmp_path, a=ECHO), body)


def test_none_is_put_in_force_once_the_server_shuts_down(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def body(scenario: ReloadScenario) -> None:
        write(tmp_path, a=ECHO + SLOW.format(str(gate)))
        under_way = scenario.reloads.request_reload()
        await asyncio.sleep(0)
        asked = asyncio.create_task(scenario.answer())
        await asyncio.sleep(0)
        scenario.gate.close()
        gate.touch()
        for waiting in (under_way, asked, scenario.answer()):
            with pytest.raises(ShuttingDown):
                await waiting
        scenario.gate.is_closed = False
        gate.unlink()
        write(tmp_path, a=ECHO + SLOW.format(str(gate)) + "# more")
        asked = asyncio.create_task(scenario.answer())
        await asyncio.sleep(0)
        scenario.reloads.close()
        with pytest.raises(ShuttingDown):
            await asked
        assert (scenario.in_force, scenario.retired) == (0, [])

    run_scenario(write(tmp_path, a=ECHO), body)


def test_a_refused_one_says_why_and_the_next_is_taken(tmp_path: Path) -> None:
    async def body(scenario: ReloadScenario) -> None:
        (tmp_path / "a.py").unlink()
        with pytest.raises(ReloadRefused, match="there is no file"):
            await scenario.answer()
        write(tmp_path, a=ECHO)
        assert await scenario.answer() == (200, ReloadResult(unchanged=["echo"]))

    run_scenario(write(tmp_path, a=ECHO), body)

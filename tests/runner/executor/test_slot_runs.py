"""Attempts side by side in a real executor."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from runner.protocol import worker as worker_protocol
from tests.fakes.fake_gpus import GIB, Card, FakeGpus
from tests.runner.executor.fake_worker import FakeWorker, running_executor

#: All wait for each other: nobody would end if they ran one after the other.
MEET = """
    import asyncio
    here = []
    async def f(data, ctx):
        here.append(data)
        ctx.progress(1, 2)
        while len(here) < 3:
            await asyncio.sleep(0.001)
        return sorted(here)
"""


def hand(worker: FakeWorker, **inputs: Any) -> None:
    worker.send(worker_protocol.RunAttempts(7, [worker.attempt(job, value) for job, value in inputs.items()]))


def side_by_side(folder: Path, code: str, slots: int = 4, kind: str = "coroutine", attr: str = "f") -> Any:
    return running_executor(folder, code, attr, kind, slots=slots)


def ends(worker: FakeWorker, *jobs: str) -> list[tuple[str | None, Any]]:
    found = [worker.wait_for_end(job) for job in jobs]
    return [(one.code, None if one.output is None else json.loads(one.output)) for one in found]


def test_as_many_run_at_once_as_there_are_slots(tmp_path: Path) -> None:
    with side_by_side(tmp_path, MEET) as worker:
        hand(worker, a=1, b=2, c=3)
        assert ends(worker, "a", "b", "c") == [(None, [1, 2, 3])] * 3
        begun = worker.messages_of(worker_protocol.SlotStarted)
        assert len({one.slot_index for one in begun}) == 3
        assert all(abs(one.at_mono - time.monotonic()) < 20 for one in begun)


def test_no_more_run_than_there_are_slots(tmp_path: Path) -> None:
    code = """
        import asyncio
        now = most = 0
        async def f(data, ctx):
            global now, most
            now += 1
            most = max(now, most)
            await asyncio.sleep(0.01)
            now -= 1
            return most
    """
    with side_by_side(tmp_path, code, slots=2) as worker:
        jobs = {f"j{number}": None for number in range(9)}
        hand(worker, **jobs)
        assert max(output for _, output in ends(worker, *jobs)) == 2
        assert worker.wait_for_end("j8").code is None


def test_each_has_its_own_words(tmp_path: Path) -> None:
    code = """
        import asyncio, logging
        turn = asyncio.Event()
        async def helper(name):
            print("helper of", name)
        async def f(name, ctx):
            print(f"{name} ", end="")
            await asyncio.sleep(0.01)
            logging.getLogger("lib").info("log of %s", name)
            await asyncio.gather(asyncio.create_task(helper(name)))
            await asyncio.to_thread(print, "thread of", name)
            ctx.output(name)
            print("ends", end="")
    """
    with side_by_side(tmp_path, code) as worker:
        hand(worker, a="a", b="b")
        ends(worker, "a", "b")
        for name in "ab":
            assert worker.logs_of(name) == [
                ("logging", "info", f"log of {name}"),
                ("stdout", None, f"{name} helper of {name}"),
                ("stdout", None, f"thread of {name}"),
                ("stdout", None, "ends"),
            ]
            assert worker.events_of("output", name) == [{"chunk": name}]


def test_async_generators_run_side_by_side(tmp_path: Path) -> None:
    code = """
        import asyncio
        async def f(data):
            for number in range(3):
                await asyncio.sleep(0.001)
                yield [data, number]
    """
    with side_by_side(tmp_path, code, kind="async_generator") as worker:
        hand(worker, a="a", b="b")
        for name, (code_, output) in zip("ab", ends(worker, "a", "b"), strict=True):
            assert (code_, output) == (None, [[name, 0], [name, 1], [name, 2]])
            assert [one["chunk"] for one in worker.events_of("output", name)] == output


SLEEPS = """
    import asyncio
    async def f(data, ctx):
        ctx.output("begun")
        await asyncio.sleep(data)
        return "rested"
"""


def test_one_is_cancelled_and_the_others_go_on(tmp_path: Path) -> None:
    with side_by_side(tmp_path, SLEEPS) as worker:
        hand(worker, a=60, b=0.5)
        worker.until(lambda: worker.events_of("output", "a") and worker.events_of("output", "b"))
        worker.send(worker_protocol.RequestCancel("a", 1, "enough"))
        assert worker.wait_for_end("a").code == "cancelled"
        assert not worker.messages_of(worker_protocol.AttemptEnded, "b")
        assert ends(worker, "b") == [(None, "rested")]


def test_the_second_rung_ends_the_executor_at_once(tmp_path: Path) -> None:
    with side_by_side(tmp_path, SLEEPS) as worker:
        hand(worker, a=60, b=60)
        worker.until(lambda: worker.events_of("output", "b"))
        worker.send(worker_protocol.RaiseCancelled("a", 1))
        assert worker.exit_code() == 72
        assert not worker.messages_of(worker_protocol.AttemptEnded)


def test_failures_are_those_of_their_attempts(tmp_path: Path) -> None:
    code = """
        import asyncio
        async def f(data, ctx):
            await asyncio.sleep(0.001)
            if data == "bad": raise ValueError("mine")
            if data == "cancel": raise asyncio.CancelledError
            return data
    """
    with side_by_side(tmp_path, code) as worker:
        hand(worker, a="bad", b="good", c="cancel")
        assert ends(worker, "a", "b") == [("handler_error", None), (None, "good")]
        assert worker.wait_for_end("a").message == "ValueError: mine"
        assert worker.wait_for_end("c").code == "handler_error"


def test_what_waits_is_given_back_and_a_new_one_takes_the_free_slot(tmp_path: Path) -> None:
    with side_by_side(tmp_path, SLEEPS, slots=2) as worker:
        hand(worker, a=60, b=60, c=60)
        worker.until(lambda: worker.events_of("output", "b"))
        worker.send(worker_protocol.RecallAttempts(7))
        assert worker.until(lambda: worker.messages_of(worker_protocol.AttemptsRecalled))[0].attempts == [
            ("c", 1)
        ]
        worker.send(worker_protocol.RequestCancel("a", 1, "x"))
        hand(worker, d=0)
        assert ends(worker, "a", "d") == [("cancelled", None), (None, "rested")]


def test_a_process_that_is_ended_by_one_tells_nothing_of_the_others(tmp_path: Path) -> None:
    code = """
        import asyncio, sys
        async def f(data, ctx):
            ctx.output("begun")
            await asyncio.sleep(0.01)
            if data: sys.exit(3)
            await asyncio.sleep(60)
    """
    with side_by_side(tmp_path, code) as worker:
        hand(worker, a=0, b=1)
        assert worker.exit_code() == 3
        assert not worker.messages_of(worker_protocol.AttemptEnded)
        assert worker.events_of("output", "a") and worker.events_of("output", "b")


def test_a_class_is_loaded_and_unloaded_in_the_same_loop(tmp_path: Path) -> None:
    code = """
        import asyncio
        class F:
            async def load(self, ctx):
                self.loop = asyncio.get_running_loop()
                print("loaded for", ctx.job_id)
            async def run(self, data):
                return self.loop is asyncio.get_running_loop()
            async def unload(self):
                print("bye", self.loop is asyncio.get_running_loop(), flush=True)
    """
    with side_by_side(tmp_path, code, attr="F") as worker:
        hand(worker, a=1, b=2)
        assert ends(worker, "a", "b") == [(None, True)] * 2
        assert worker.logs_of("a") == [("stdout", None, "loaded for a")]
        worker.send(worker_protocol.UnloadExecutor(7))
        assert worker.exit_code() == 0


def test_an_unload_that_comes_before_the_load_still_unloads(tmp_path: Path) -> None:
    with side_by_side(tmp_path, SLEEPS) as worker:
        worker.send(worker_protocol.UnloadExecutor(7))
        assert worker.exit_code() == 0


def test_a_changed_grant_reaches_torch_while_another_attempt_runs(tmp_path: Path) -> None:
    code = """
        import asyncio
        import torch
        async def f(nbytes, ctx):
            if nbytes is None:
                await asyncio.sleep(60)
            try:
                return torch.empty(nbytes, dtype=torch.uint8, device=ctx.device).nbytes
            except torch.OutOfMemoryError:
                return "full"
    """
    gpus = FakeGpus(tmp_path / "gpus", Card("GPU-a"))
    with running_executor(
        tmp_path,
        code,
        kind="coroutine",
        slots=2,
        device="cuda:0",
        devices=["gpu0"],
        cap_bytes=2 * GIB,
        environ={**gpus.environ(), "CUDA_VISIBLE_DEVICES": "GPU-a"},
    ) as worker:
        hand(worker, busy=None, a=4 * GIB)
        assert ends(worker, "a") == [(None, "full")]
        worker.send(worker_protocol.SetGrant(7, 6 * GIB, 6 * GIB))
        hand(worker, b=4 * GIB)
        assert ends(worker, "b") == [(None, 4 * GIB)]
        worker.send(worker_protocol.SetGrant(7, 3 * GIB, 3 * GIB))
        hand(worker, c=5 * GIB)
        assert ends(worker, "c") == [(None, "full")]
        assert not worker.messages_of(worker_protocol.AttemptEnded, "busy")

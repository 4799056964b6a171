"""Batches in a real executor: one call, one outcome for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import FakeWorker, running_executor

DOUBLE = "def f(data: list[int], ctx): return [2 * one for one in data]"


def hand(worker: FakeWorker, **inputs: Any) -> None:
    worker.send(worker_protocol.RunAttempts(7, [worker.attempt(job, value) for job, value in inputs.items()]))


def ends(worker: FakeWorker, *jobs: str) -> list[tuple[str | None, Any]]:
    found = [worker.wait_for_end(job) for job in jobs]
    return [(one.code, None if one.output is None else json.loads(one.output)) for one in found]


def batch(folder: Path, code: str, **settings: Any) -> Any:
    return running_executor(folder, code, is_batched=True, **settings)


def test_one_call_gives_each_its_outcome(tmp_path: Path) -> None:
    with batch(tmp_path, DOUBLE) as worker:
        hand(worker, a=1, b=2, c=3)
        assert ends(worker, "a", "b", "c") == [(None, 2), (None, 4), (None, 6)]
        assert [worker.wait_for_end(job).batch_size for job in "abc"] == [3, 3, 3]
        assert worker.read_page()[0] == worker.read_page()[2] == 3
        hand(worker, d=4)
        assert ends(worker, "d") == [(None, 8)]


def test_a_coroutine_and_a_class_take_batches_too(tmp_path: Path) -> None:
    code = """
        class F:
            def load(self, ctx): self.factor = 3
            async def run(self, data: list[int]): return tuple(self.factor * one for one in data)
    """
    with batch(tmp_path, code, attr="F", kind="coroutine") as worker:
        hand(worker, a=1, b=2)
        assert ends(worker, "a", "b") == [(None, 3), (None, 6)]


def test_exceptions_in_the_list_are_those_of_their_items(tmp_path: Path) -> None:
    code = """
        from runner import PermanentError, Retry
        def f(data):
            return [data[0], ValueError("bad"), PermanentError("gone"), Retry("later", after=60), object()]
    """
    with batch(tmp_path, code) as worker:
        hand(worker, a=1, b=2, c=3, d=4, e=5)
        assert ends(worker, "a") == [(None, 1)]
        found = {job: worker.wait_for_end(job) for job in "bcde"}
        assert [(one.code, one.retryable, one.is_blame_unknown) for one in found.values()] == [
            ("handler_error", True, False),
            ("permanent_error", False, False),
            ("handler_error", True, False),
            ("result_not_serialisable", False, False),
        ]
        assert found["b"].message == "ValueError: bad"
        assert found["d"].retry_at is not None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(data): raise ValueError('all')", "ValueError: all"),
        ("def f(data): return data[:-1]", "the batch had 2 inputs, but it returned 1 outcomes"),
        ("def f(data): return 7", "a batch returns a list"),
        ("def f(data): return (x for x in data)", "a batch returns a list"),
    ],
)
def test_a_call_that_fails_is_nobodys_own_fault_but_of_one_alone(
    tmp_path: Path, code: str, said: str
) -> None:
    with batch(tmp_path, code) as worker:
        hand(worker, a=1, b=2)
        for job in "ab":
            ended = worker.wait_for_end(job)
            assert (ended.code, ended.batch_size, ended.is_blame_unknown) == ("handler_error", 2, True)
            assert said in ended.message
        hand(worker, c=3)
        assert (worker.wait_for_end("c").code, worker.wait_for_end("c").is_blame_unknown) == (
            "handler_error",
            False,
        )


def test_a_wrong_input_is_not_in_the_batch(tmp_path: Path) -> None:
    code = "def f(data: list[int], ctx): return [[one.job_id for one in ctx.items]] * len(data)"
    with batch(tmp_path, code) as worker:
        hand(worker, a=1, b="no", c=3)
        assert ends(worker, "a", "b", "c") == [
            (None, ["a", "c"]),
            ("invalid_input", None),
            (None, ["a", "c"]),
        ]
        hand(worker, d="no")
        assert ends(worker, "d") == [("invalid_input", None)]


def test_items_speak_for_themselves_and_the_batch_for_all(tmp_path: Path) -> None:
    code = """
        import logging
        def f(data, ctx):
            ctx.progress(1, 2, message="all")
            print("printed")
            ctx.log.info("logged")
            ctx.metric("loss", 0.5)
            ctx.output("chunk")
            for item, value in zip(ctx.items, data):
                item.output(value)
                item.save_file("own.txt", str(value).encode())
            try:
                ctx.save_file("whose.txt", b"")
            except RuntimeError as error:
                said = str(error)
            (ctx.tmpdir / "scratch").write_text("x")
            same = ctx.items is ctx.items
            return [[item.job_id, item.attempt, ctx.job_id, said, same] for item in ctx.items]
    """
    with batch(tmp_path, code) as worker:
        hand(worker, a=1, b=2)
        (_, first), (_, second) = ends(worker, "a", "b")
        said = "a file belongs to one job: in a batch, use ctx.items[i].save_file(...)"
        assert first == ["a", 1, "", said, True] and second[0] == "b"
        for job, value in (("a", 1), ("b", 2)):
            assert worker.events_of("output", job) == [{"chunk": "chunk"}, {"chunk": value}]
            assert worker.events_of("progress", job)[0]["message"] == "all"
            assert worker.events_of("metric", job) == [{"name": "loss", "value": 0.5}]
            assert worker.logs_of(job) == [("stdout", None, "printed"), ("logging", "info", "logged")]
            (file,) = worker.wait_for_end(job).files
            assert (worker.files / job / "1" / file.id).read_bytes() == str(value).encode()
        assert list((tmp_path / "tmp").iterdir()) == []


WAITS = """
    import time
    def f(data, ctx):
        called = []
        ctx.on_cancel(lambda: called.append(1))
        ctx.output("begun")
        while not ctx.items[0].cancelled: time.sleep(0.001)
        seen = ctx.cancelled
        while data[1] == "both" and not called: time.sleep(0.001)
        return [seen, [item.cancelled for item in ctx.items]]
"""


def test_one_that_is_cancelled_does_not_end_the_others(tmp_path: Path) -> None:
    with batch(tmp_path, WAITS) as worker:
        hand(worker, a=1, b=2)
        worker.until(lambda: worker.events_of("output", "b"))
        worker.send(worker_protocol.RequestCancel("a", 1, "enough"))
        assert ends(worker, "a", "b") == [("cancelled", None), (None, [True, False])]
        assert worker.wait_for_end("a").message == "enough"


def test_the_batch_is_cancelled_when_all_are(tmp_path: Path) -> None:
    with batch(tmp_path, WAITS) as worker:
        hand(worker, a=1, b="both")
        worker.until(lambda: worker.events_of("output", "b"))
        worker.send(
            worker_protocol.RequestCancel("b", 1, "enough"), worker_protocol.RequestCancel("a", 1, "too")
        )
        assert ends(worker, "a", "b") == [("cancelled", None)] * 2


def test_a_coroutine_is_cancelled_when_all_are(tmp_path: Path) -> None:
    code = """
        import asyncio
        async def f(data, ctx):
            ctx.output("begun")
            await asyncio.sleep(60)
    """
    with batch(tmp_path, code, kind="coroutine") as worker:
        hand(worker, a=1, b=2)
        worker.until(lambda: worker.events_of("output", "b"))
        worker.send(worker_protocol.RequestCancel("a", 1, "x"), worker_protocol.RequestCancel("b", 1, "x"))
        assert ends(worker, "a", "b") == [("cancelled", None)] * 2
        hand(worker, c=1)
        worker.until(lambda: worker.events_of("output", "c"))


def test_a_raised_cancel_ends_the_executor_and_nobody_else_is_blamed(tmp_path: Path) -> None:
    code = """
        import time
        def f(data, ctx):
            ctx.output("begun")
            time.sleep(60)
    """
    with batch(tmp_path, code) as worker:
        hand(worker, a=1, b=2)
        worker.until(lambda: worker.events_of("output", "b"))
        worker.send(
            worker_protocol.RequestCancel("a", 1, "x"),
            worker_protocol.RequestCancel("b", 1, "x"),
            worker_protocol.RaiseCancelled("b", 1),
        )
        assert ends(worker, "a", "b") == [("cancelled", None)] * 2
        assert worker.wait_for_end("a").executor_closing
        assert worker.exit_code() == 72


def test_a_batch_that_waits_comes_back_as_it_was(tmp_path: Path) -> None:
    code = """
        import time
        def f(data, ctx):
            ctx.output("begun")
            while not ctx.cancelled: time.sleep(0.001)
            return data
    """
    with batch(tmp_path, code) as worker:
        hand(worker, a=1, b=2)
        worker.until(lambda: worker.events_of("output", "a"))
        hand(worker, c=3, d=4)
        hand(worker, e=5)
        worker.send(worker_protocol.RecallAttempts(7))
        recalled = worker.until(lambda: worker.messages_of(worker_protocol.AttemptsRecalled))
        assert recalled[0].attempts == [("c", 1), ("d", 1), ("e", 1)]


def test_a_flag_before_the_start_leaves_one_out(tmp_path: Path) -> None:
    code = """
        import time
        class F:
            def load(self, ctx):
                print("loading", flush=True)
                while not ctx.items[0].cancelled: time.sleep(0.001)
            def run(self, data): return [data] * len(data)
    """
    with batch(tmp_path, code, attr="F") as worker:
        hand(worker, a=1, b=2)
        worker.until(lambda: worker.logs_of("b"))
        worker.send(worker_protocol.RequestCancel("a", 1, "x"))
        assert ends(worker, "a", "b") == [("cancelled", None), (None, [2])]

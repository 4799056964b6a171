from __future__ import annotations

from pathlib import Path

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import FakeWorker, running_executor


def begin(worker: FakeWorker, *jobs: str) -> None:
    """Hand over, and wait until the first one says that it runs."""
    worker.send(worker_protocol.RunAttempts(7, [worker.attempt(job) for job in jobs]))
    worker.until(lambda: worker.events_of("output", jobs[0]) or worker.events_of("log", jobs[0]))


def test_the_flag_is_seen_by_the_context_and_calls_back(tmp_path: Path) -> None:
    code = """
        import threading
        def f(d, ctx):
            told = threading.Event()
            ctx.on_cancel(told.set)
            ctx.output("begun")
            told.wait(0 if d else 10)
            return ctx.cancelled
    """
    with running_executor(tmp_path, code) as worker:
        begin(worker, "j")
        worker.send(worker_protocol.RequestCancel("j", 1, "by hand"))
        ended = worker.wait_for_end()
        assert (ended.code, ended.message, ended.output) == ("cancelled", "by hand", None)
        assert worker.run("next", 1).code is None


def test_on_cancel_after_the_flag_calls_at_once(tmp_path: Path) -> None:
    code = """
        import threading
        def f(d, ctx):
            ctx.output("begun")
            while not ctx.cancelled: pass
            told = threading.Event()
            ctx.on_cancel(told.set)
            print(told.wait(10))
    """
    with running_executor(tmp_path, code) as worker:
        begin(worker, "j")
        worker.send(worker_protocol.RequestCancel("j", 1, ""))
        worker.wait_for_end()
        assert worker.logs_of() == [("stdout", None, "True")]


def test_check_cancelled_raises_what_ends_the_attempt(tmp_path: Path) -> None:
    code = """
        def f(d, ctx):
            ctx.output("begun")
            try:
                while True: ctx.check_cancelled()
            except Exception:
                print("an Exception")
            finally:
                print("cleaned")
    """
    with running_executor(tmp_path, code) as worker:
        begin(worker, "j")
        worker.send(worker_protocol.RequestCancel("j", 1, "why"))
        assert worker.wait_for_end().message == "why"
        assert worker.logs_of() == [("stdout", None, "cleaned")]


@pytest.mark.parametrize("kind", ["coroutine", "async_generator"])
def test_the_flag_cancels_a_coroutine(tmp_path: Path, kind: str) -> None:
    code = f"""
        import asyncio
        async def f(d, ctx):
            ctx.output("begun")
            try:
                await asyncio.sleep(60)
            finally:
                print("cleaned")
            {"yield 1" if kind == "async_generator" else ""}
    """
    with running_executor(tmp_path, code, kind=kind) as worker:
        begin(worker, "j")
        worker.send(worker_protocol.RequestCancel("j", 1, "x"))
        assert worker.wait_for_end().code == "cancelled"
        assert worker.logs_of() == [("stdout", None, "cleaned")]


def test_the_flag_ends_a_generator_at_its_next_chunk(tmp_path: Path) -> None:
    code = "import itertools\ndef f(d):\n yield from itertools.count()"
    with running_executor(
        tmp_path, code, kind="generator", output_max_bytes=1 << 30, events_max=1 << 30
    ) as worker:
        begin(worker, "j")
        worker.send(worker_protocol.RequestCancel("j", 1, "x"))
        assert worker.wait_for_end().code == "cancelled"


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        "threading.Event().wait()",
        "while True: pass",
        "queue.Queue().get()",
        "subprocess.run(['sleep', '60'])",
    ],
)
def test_raise_ends_what_the_flag_did_not_and_the_executor_with_it(tmp_path: Path, body: str) -> None:
    code = f"""
        import queue, subprocess, threading, time
        def f(d, ctx):
            try:
                ctx.output("begun")
                {body}
            finally:
                print("cleaned")
    """
    with running_executor(tmp_path, code) as worker:
        begin(worker, "j")
        worker.send(worker_protocol.RequestCancel("j", 1, "why"), worker_protocol.RaiseCancelled("j", 1))
        ended = worker.wait_for_end()
        assert (ended.code, ended.message) == ("cancelled", "why")
        assert worker.logs_of() == [("stdout", None, "cleaned")]
        assert worker.exit_code() != 0


@pytest.mark.timed
def test_raise_gets_through_to_a_handler_that_waits_for_the_worker_to_read(tmp_path: Path) -> None:
    code = "def f(d, ctx):\n ctx.output('begun')\n while True: ctx.output('x' * 100_000)"
    with running_executor(tmp_path, code, output_max_bytes=1 << 20) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        # Nothing is read until the executor has stopped sending: its own bound holds it.
        worker.until_quiet()
        worker.send(worker_protocol.RequestCancel("j", 1, "why"), worker_protocol.RaiseCancelled("j", 1))
        assert worker.wait_for_end().code == "cancelled"
        assert len(worker.events_of("output")) < 100


def test_raise_of_another_attempt_does_nothing(tmp_path: Path) -> None:
    code = "def f(d, ctx):\n ctx.output('begun')\n with ctx.open_file('x'): return 1"
    with running_executor(tmp_path, code) as worker:
        begin(worker, "j")
        worker.send(
            worker_protocol.RequestCancel("other", 1, ""),
            worker_protocol.RaiseCancelled("j", 2),
            worker_protocol.RaiseCancelled("other", 1),
        )
        call = worker.until(lambda: worker.messages_of(worker_protocol.AttemptRequest))[0]
        (tmp_path / "x").write_bytes(b"")
        worker.send(worker_protocol.AttemptReply(call.request_id, 7, result=str(tmp_path / "x")))
        assert worker.wait_for_end().output == b"1"


def test_a_late_flag_does_not_touch_the_next_attempt(tmp_path: Path) -> None:
    with running_executor(tmp_path, "def f(d, ctx): return ctx.cancelled") as worker:
        worker.run("a")
        worker.send(worker_protocol.RequestCancel("a", 1, "late"), worker_protocol.RaiseCancelled("a", 1))
        assert worker.run("b").output == b"false"


def test_a_handler_that_took_the_signal_is_still_interrupted_next_time(tmp_path: Path) -> None:
    code = """
        import signal, time
        def f(d, ctx):
            if d == "steal":
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
                time.sleep(0.01)
                return 1
            ctx.output("begun")
            time.sleep(60)
    """
    with running_executor(tmp_path, code) as worker:
        worker.run("a", "steal")
        begin(worker, "j")
        worker.send(worker_protocol.RequestCancel("j", 1, "x"), worker_protocol.RaiseCancelled("j", 1))
        assert worker.wait_for_end().code == "cancelled"

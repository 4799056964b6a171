from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import running_executor


def test_progress_is_coalesced_but_its_first_and_last_always_come(tmp_path: Path) -> None:
    code = "def f(n, ctx):\n for i in range(n): ctx.progress(i + 1, n, message='m', loss=0.5)"
    with running_executor(tmp_path, code) as worker:
        worker.run("j", 1000)
        told = worker.events_of("progress")
        assert (told[0]["done"], told[-1]["done"]) == (1, 1000)
        assert len(told) < 20
        assert told[-1] == {
            "done": 1000,
            "total": 1000,
            "fraction": 1.0,
            "message": "m",
            "details": {"loss": 0.5},
        }


def test_a_held_progress_comes_without_the_handlers_help(tmp_path: Path) -> None:
    code = """
        def f(d, ctx):
            ctx.progress(1)
            ctx.progress(2)
            with ctx.open_file("gate"): pass
    """
    with running_executor(tmp_path, code) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        worker.until(lambda: len(worker.events_of("progress")) == 2, within_s=2)
        assert worker.messages_of(worker_protocol.AttemptEnded) == []
        call = worker.messages_of(worker_protocol.AttemptRequest)[0]
        worker.send(worker_protocol.AttemptReply(call.request_id, 7, error=("not_found", "no such file")))
        assert worker.wait_for_end().code == "handler_error"


@pytest.mark.parametrize(
    "bad", ["float('nan')", "'x'", "None", "True", "10**400", "1, float('inf')", "1, 2, x=object()"]
)
def test_progress_that_is_no_number_is_the_handlers_mistake(tmp_path: Path, bad: str) -> None:
    with running_executor(tmp_path, f"def f(d, ctx): ctx.progress({bad})") as worker:
        ended = worker.run()
        assert ended.code in ("handler_error", "result_not_serialisable")
        assert worker.events_of("progress") == []


@pytest.mark.parametrize(
    ("call", "expected"),
    [("1, 0", 1.0), ("5, None", None), ("-1, 10", 0.0), ("20, 10", 1.0), ("0.5, 1", 0.5)],
)
def test_the_fraction_stays_within_its_bounds(tmp_path: Path, call: str, expected: float | None) -> None:
    with running_executor(tmp_path, f"def f(d, ctx): ctx.progress({call})") as worker:
        worker.run()
        assert worker.events_of("progress")[0]["fraction"] == expected


def test_prints_logs_and_chunks_come_in_order(tmp_path: Path) -> None:
    code = """
        import logging, sys
        def f(d, ctx):
            print("one")
            sys.stderr.write("two\\nthree")
            sys.stderr.write(" and more\\n")
            ctx.log.debug("four")
            logging.getLogger("lib").warning("five %d", 5)
            sys.stdout.buffer.write(b"six\\xff\\n")
            ctx.output({"n": 7})
            ctx.metric("loss", 0.5)
            print("no line end", end="")
    """
    with running_executor(tmp_path, code) as worker:
        worker.run()
        assert worker.logs_of() == [
            ("stdout", None, "one"),
            ("stderr", None, "two"),
            ("stderr", None, "three and more"),
            ("logging", "debug", "four"),
            ("logging", "warning", "five 5"),
            ("stdout", None, "six\ufffd"),
            ("stdout", None, "no line end"),
        ]
        assert worker.events_of("output") == [{"chunk": {"n": 7}}]
        assert worker.events_of("metric") == [{"name": "loss", "value": 0.5}]
        kinds = [
            kind for note in worker.messages_of(worker_protocol.AttemptEvents) for kind, _, _ in note.events
        ]
        assert kinds == ["log"] * 6 + ["output", "metric", "log"]


def test_messages_of_an_attempt_are_numbered_without_a_gap_and_end_with_its_end(tmp_path: Path) -> None:
    code = "def f(n, ctx):\n for i in range(n): ctx.output(i)"
    with running_executor(tmp_path, code) as worker:
        ended = worker.run("j", 500)
        assert [note.seq for note in worker.messages_of(worker_protocol.AttemptEvents)] == list(
            range(1, ended.seq)
        )
        assert isinstance(worker.messages[-1], worker_protocol.AttemptEnded)
        assert [event["chunk"] for event in worker.events_of("output")] == list(range(500))
        assert ended.seq < 100


def test_a_logged_exception_is_one_event_with_its_traceback(tmp_path: Path) -> None:
    code = "def f(d, ctx):\n try: 1/0\n except ZeroDivisionError: ctx.log.exception('oh')"
    with running_executor(tmp_path, code) as worker:
        worker.run()
        ((stream, level, text),) = worker.logs_of()
        assert (stream, level) == ("logging", "error")
        assert text.startswith("oh\nTraceback")


def test_log_text_is_limited_and_says_so_once(tmp_path: Path) -> None:
    code = "def f(d):\n for i in range(5000): print('x' * 90)\n print('y' * 10_000_000)\n return 1"
    with running_executor(tmp_path, code, log_max_bytes=10_000, events_max=100_000) as worker:
        assert worker.run().code is None
        lines = worker.logs_of()
        assert sum(len(text) for _, _, text in lines) < 20_000
        assert [text for stream, _, text in lines if stream == "logging"] == [lines[-1][2]]
        assert "limit of 10000 bytes of log" in lines[-1][2]


#: All that an attempt may send more often than the bound on events allows; the input is how often.
TOO_MANY_EVENTS = """
    def chunks(n): yield from range(n)
    def outputs(n, ctx): [ctx.output(i) for i in range(n)]
    def metrics(n, ctx): [ctx.metric("loss", i) for i in range(n)]
    def caught(n, ctx):
        for i in range(n):
            try: ctx.output(i)
            except Exception: pass
    def endless(n, ctx):
        while True: ctx.output(0)
"""


@pytest.mark.parametrize("attr", ["chunks", "outputs", "metrics", "caught", "endless"])
def test_more_events_than_the_bound_end_the_attempt(tmp_path: Path, attr: str) -> None:
    kind = "generator" if attr == "chunks" else "function"
    with running_executor(tmp_path, TOO_MANY_EVENTS, attr, kind, events_max=10) as worker:
        ended = worker.run("few", 10) if attr != "endless" else None
        assert ended is None or ended.code is None
        ended = worker.run("j", 11)
        assert (ended.code, ended.retryable, ended.output) == ("result_too_large", False, None)
        assert "more than 10 events" in ended.message
        assert len(worker.events_of("output") + worker.events_of("metric")) == 10


def test_progress_becomes_rarer_as_events_are_used_up(tmp_path: Path) -> None:
    code = """
        import time
        def f(d, ctx):
            for i in range(8): ctx.output(i)
            end = time.monotonic() + 0.5
            while time.monotonic() < end: ctx.progress(1)
    """
    with running_executor(tmp_path, code, events_max=12) as worker:
        assert worker.run().code is None
        assert 2 <= len(worker.events_of("progress")) <= 4


def test_a_line_that_is_redrawn_is_told_as_it_was_last(tmp_path: Path) -> None:
    code = (
        "import sys\ndef f(d):\n for i in range(5): sys.stderr.write(f'\\r{i}/4')\n sys.stderr.write('\\n')"
    )
    with running_executor(tmp_path, code) as worker:
        worker.run()
        assert worker.logs_of() == [("stderr", None, "4/4")]


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    code = """
        import sys, threading
        def talk(word):
            for _ in range(200):
                sys.stdout.write(word); sys.stdout.write(word + "\\n")
        def f(d):
            threads = [threading.Thread(target=talk, args=(w,)) for w in "abc"]
            [t.start() for t in threads]; [t.join() for t in threads]
    """
    with running_executor(tmp_path, code) as worker:
        worker.run()
        lines = [text for _, _, text in worker.logs_of()]
        assert sorted(set(lines)) == ["aa", "bb", "cc"]
        assert len(lines) == 600


def test_a_finaliser_that_prints_does_not_dead_lock(tmp_path: Path) -> None:
    code = """
        import gc, signal
        class Chatty:
            def __init__(self): self.me = self
            def __del__(self): print("gone")
        def f(d, ctx):
            gc.set_threshold(1)
            signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            for i in range(2000):
                Chatty()
                ctx.output(i)
            signal.setitimer(signal.ITIMER_REAL, 0)
            return "done"
    """
    with running_executor(tmp_path, code, events_max=100_000) as worker:
        assert worker.run().output == b'"done"'
        assert [event["chunk"] for event in worker.events_of("output")] == list(range(2000))


def test_bytes_of_c_code_are_parted_from_the_next_attempt_by_a_marker(tmp_path: Path) -> None:
    code = """
        import ctypes, os
        def f(data):
            ctypes.CDLL(None).printf(b"from C\\n")
            os.write(2, b"raw")
    """
    with running_executor(tmp_path, code) as worker:
        worker.process.send_signal(signal.SIGCONT)
        worker.run()
        marked = [one for one in worker.messages if isinstance(one, worker_protocol.OutputMark)]
        told = b"".join(worker.printed.values())
        assert b"from C\n" in worker.printed["stdout"]
        for one in marked:
            assert worker.messages.index(one) < worker.messages.index(
                worker.messages_of(worker_protocol.AttemptEnded)[0]
            )
            assert told.count(one.marker) == one.stdout + one.stderr


def test_an_unread_pipe_gets_a_marker_right_after_the_attempts_bytes(tmp_path: Path) -> None:
    with running_executor(tmp_path, "import os\ndef f(d): os.write(1, b'raw')") as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        # Nothing reads the pipe until the end is there.
        pipes, worker.pipes = worker.pipes, {}
        ended = worker.wait_for_end()
        worker.pipes = pipes
        assert ended.code is None
        (marked,) = worker.messages_of(worker_protocol.OutputMark)
        assert (marked.stdout, marked.stderr) == (True, False)
        assert os.read(pipes["stdout"], 4096) == b"raw" + marked.marker


def test_the_context_tells_what_it_was_given(tmp_path: Path) -> None:
    code = """
        from datetime import UTC, datetime
        def f(d, ctx):
            left = (ctx.deadline - datetime.now(UTC)).total_seconds()
            here = [ctx.device, ctx.devices, ctx.vram_bytes]
            return [ctx.job_id, ctx.attempt, *here, ctx.cancelled, 55 < left <= 60]
    """
    with running_executor(tmp_path, code, grant_bytes=5) as worker:
        ended = worker.run("j", timeout_s=60)
        assert ended.output == b'["j",1,"cpu",["cpu"],5,false,true]'


def test_every_use_of_the_context_is_seen_on_the_page(tmp_path: Path) -> None:
    code = "def f(d, ctx):\n with ctx.open_file('x'): pass"
    with running_executor(tmp_path, code) as worker:
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("j")]))
        call = worker.until(lambda: worker.messages_of(worker_protocol.AttemptRequest))[0]
        started, started_ns, finished, active_ns = worker.read_page()
        assert (started, finished) == (1, 0)
        assert active_ns > started_ns > 0
        (tmp_path / "x").write_bytes(b"")
        worker.send(worker_protocol.AttemptReply(call.request_id, 7, result=str(tmp_path / "x")))
        worker.wait_for_end()
        assert worker.read_page()[2] == 1


def test_simulated_memory_is_told_to_the_worker(tmp_path: Path) -> None:
    with running_executor(
        tmp_path, "from runner.executor.simulated_memory import allocate\ndef f(d): allocate('1GiB')"
    ) as worker:
        worker.run()
        assert [one.nbytes for one in worker.messages_of(worker_protocol.SimulatedAllocation)] == [1 << 30]

from __future__ import annotations

from pathlib import Path

from runner.protocol import worker as worker_protocol
from tests.runner.executor.fake_worker import running_executor

SLOW_FIRST = """
    def f(d, ctx):
        if d == "wait":
            ctx.output("begun")
            ctx.open_file("gate")
        return d
"""


def test_results_of_staged_attempts_come_in_few_sends_and_in_order(tmp_path: Path) -> None:
    with running_executor(tmp_path, "def f(d): return d") as worker:
        worker.run("warm")
        before = worker.reads
        jobs = [f"j{n}" for n in range(16)]
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt(job, n) for n, job in enumerate(jobs)]))
        worker.until(lambda: len(worker.messages_of(worker_protocol.AttemptEnded)) == 17)
        assert [one.job_id for one in worker.messages_of(worker_protocol.AttemptEnded)[1:]] == jobs
        assert worker.reads - before <= 4
        assert worker.read_page()[0] == worker.read_page()[2] == 17


def test_a_result_held_back_comes_although_the_next_attempt_runs_on(tmp_path: Path) -> None:
    with running_executor(tmp_path, SLOW_FIRST) as worker:
        worker.run("warm")
        worker.send(worker_protocol.RunAttempts(7, [worker.attempt("a", 1), worker.attempt("b", "wait")]))
        worker.until(lambda: worker.messages_of(worker_protocol.AttemptEnded, "a"), within_s=2)
        assert worker.messages_of(worker_protocol.AttemptEnded, "b") == []


def test_a_recall_gives_back_what_has_not_started(tmp_path: Path) -> None:
    with running_executor(tmp_path, SLOW_FIRST) as worker:
        worker.send(
            worker_protocol.RunAttempts(
                7, [worker.attempt("a", "wait"), worker.attempt("b"), worker.attempt("c")]
            )
        )
        worker.until(lambda: worker.events_of("output", "a"))
        worker.send(worker_protocol.RecallAttempts(7))
        recalled = worker.until(lambda: worker.messages_of(worker_protocol.AttemptsRecalled))[0]
        assert recalled == worker_protocol.AttemptsRecalled(7, [("b", 1), ("c", 1)])
        call = worker.until(lambda: worker.messages_of(worker_protocol.AttemptRequest))[0]
        worker.send(
            worker_protocol.AttemptReply(call.request_id, 7, error=("not_found", "x")),
            worker_protocol.RunAttempts(7, [worker.attempt("d", 5)]),
        )
        assert worker.wait_for_end("d").output == b"5"
        assert worker.messages_of(worker_protocol.AttemptEnded, "b") == []
        assert worker.read_page()[0] == 2


def test_a_recall_of_nothing_is_answered_too(tmp_path: Path) -> None:
    with running_executor(tmp_path, SLOW_FIRST) as worker:
        worker.run("a")
        worker.send(worker_protocol.RecallAttempts(7))
        assert worker.until(lambda: worker.messages_of(worker_protocol.AttemptsRecalled))[0].attempts == []


def test_a_staged_attempt_that_is_cancelled_ends_without_having_started(tmp_path: Path) -> None:
    with running_executor(tmp_path, SLOW_FIRST) as worker:
        worker.send(
            worker_protocol.RunAttempts(
                7, [worker.attempt("a", "wait"), worker.attempt("b"), worker.attempt("c", 3)]
            )
        )
        worker.until(lambda: worker.events_of("output", "a"))
        worker.send(worker_protocol.RequestCancel("b", 1, "not wanted"))
        ended = worker.wait_for_end("b")
        assert (ended.code, ended.seq, ended.message, ended.started_at) == (
            "cancelled",
            1,
            "not wanted",
            None,
        )
        call = worker.until(lambda: worker.messages_of(worker_protocol.AttemptRequest))[0]
        worker.send(worker_protocol.AttemptReply(call.request_id, 7, error=("not_found", "x")))
        assert worker.wait_for_end("c").output == b"3"
        assert worker.read_page()[0] == 2

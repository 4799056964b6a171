"""The pure parts of a worker, as tables."""

from __future__ import annotations

import pytest

from runner.protocol.worker import AttemptSpec, CancelAttempt
from runner.worker.outbox import WINDOW_BYTES, Outbox
from runner.worker.processes.page_figures import PageFigures
from runner.worker.supervision import deadlines, exit_status
from runner.worker.supervision.attempts import AttemptQueue
from runner.worker.supervision.crash_report import EndCause, assign_blame
from runner.worker.supervision.exit_status import ExitStatus
from runner.worker.supervision.kill_ladder import KillLadder, KillRung
from runner.worker.supervision.output_stream import LINE_MAX_BYTES, OutputStream
from runner.worker.supervision.recalls import Recalls

SEGV = ExitStatus("SIGSEGV", None)


def attempts(
    *jobs: str, timeout_s: float | None = None, stall_timeout_s: float | None = None
) -> list[AttemptSpec]:
    return [AttemptSpec(job, 1, "h", b"null", timeout_s, stall_timeout_s) for job in jobs]


def line_of(*jobs: str) -> AttemptQueue:
    line = AttemptQueue()
    line.assign(attempts(*jobs))
    return line


def figures(started: int, finished: int, *, at: float = 100.0, active: float = 100.0) -> PageFigures:
    return PageFigures(started, at, finished, active)


@pytest.mark.parametrize(
    ("code", "grace_s", "moments"),
    [
        ("timeout", 30.0, [10.0, 10.5, 11.0, 11.5]),
        ("stalled", 0.0, [10.0, 10.5, 11.0, 11.5]),
        ("cancelled", 0.0, [10.0, 10.5, 11.0, 11.5]),
        ("cancelled", 3.0, [10.0, 13.0, 13.5, 14.0]),
        ("interrupted", 3.0, [10.0, 13.0, 13.5, 14.0]),
    ],
)
def test_rungs_come_in_time(code: str, grace_s: float, moments: list[float]) -> None:
    ladder = KillLadder([("a", 1)], code, "", now=10.0, grace_s=grace_s)
    for rung, moment in zip(KillRung, moments, strict=True):
        assert ladder.next_at == moment
        assert ladder.pop_due(moment - 0.01) is None
        assert ladder.pop_due(moment) is rung
        assert ladder.ends_executor is (rung >= KillRung.RAISE)
    assert ladder.next_at is None and ladder.pop_due(1e9) is None


def test_a_soft_end_tells_and_spares() -> None:
    ladder = KillLadder([("a", 1)], "cancelled", "", now=10.0, grace_s=0.0, flag_only=True)
    assert ladder.pop_due(10.0) is KillRung.FLAG
    ladder.hasten(10.1)
    assert (ladder.next_at, ladder.ends_executor, ladder.is_shared) == (None, False, False)


def test_a_forced_end_leaves_no_rung() -> None:
    ladder = KillLadder([("a", 1), ("b", 1)], "cancelled", "", now=10.0, grace_s=5.0)
    ladder.skip_all()
    assert (ladder.next_at, ladder.ends_executor, ladder.is_shared) == (None, True, True)


def test_haste_never_makes_a_rung_later() -> None:
    ladder = KillLadder([("a", 1)], "cancelled", "", now=10.0, grace_s=5.0)
    ladder.hasten(11.0, 60.0)
    ladder.pop_due(10.0)
    assert ladder.next_at == 15.0
    ladder.hasten(11.0)
    assert ladder.next_at == 11.5
    ladder.pop_due(11.5)
    ladder.hasten(11.6)
    assert ladder.next_at == 12.0


@pytest.mark.parametrize(
    ("page", "timeout_s", "stall_s", "expected"),
    [
        (figures(0, 0), 1.0, None, None),
        (figures(2, 1), 1.0, None, None),
        (figures(1, 0), None, None, None),
        (figures(1, 0), 5.0, None, (105.0, "timeout")),
        (figures(1, 0, active=103.0), 5.0, 1.0, (104.0, "stalled")),
        (figures(1, 0, active=104.5), 5.0, 1.0, (105.0, "timeout")),
        (figures(1, 0, active=50.0), None, 2.0, (102.0, "stalled")),
        (figures(1, 1), 5.0, None, (105.0 + deadlines.RESULT_ALLOWANCE_S, "timeout")),
    ],
)
def test_next_deadline(
    page: PageFigures, timeout_s: float | None, stall_s: float | None, expected: tuple[float, str] | None
) -> None:
    (attempt,) = attempts("a", timeout_s=timeout_s, stall_timeout_s=stall_s)
    due = deadlines.next_deadline(page, 1, attempt)
    assert (due and (due.at_mono, due.code)) == expected


def settled(
    line: AttemptQueue,
    page: PageFigures,
    *,
    loading: bool = False,
    ladder: KillLadder | None = None,
    cause: EndCause | None = None,
) -> tuple[list[tuple[str, str, bool]], list[str], str]:
    ladders = {} if ladder is None else dict.fromkeys(ladder.keys, ladder)
    result = assign_blame(
        line, page, was_loading=loading, ladders=ladders, cause=cause, exit_status=SEGV, stderr_tail="tail"
    )
    ends = [(end.entry.key[0], end.code, end.executor_died) for end in result.ends]
    return ends, [job for job, _ in result.not_started], result.code


def test_only_the_executing_attempt_is_blamed() -> None:
    expected = [("a", "interrupted", False), ("b", "worker_crashed", True)], ["c"], "worker_crashed"
    assert settled(line_of("a", "b", "c"), figures(2, 1)) == expected


def test_death_before_the_start_blames_nobody() -> None:
    assert settled(line_of("a", "b"), figures(0, 0)) == ([], ["a", "b"], "worker_crashed")
    assert settled(AttemptQueue(), figures(7, 7)) == ([], [], "worker_crashed")


def batched(*batches: str) -> AttemptQueue:
    line = AttemptQueue(is_batched=True)
    for jobs in batches:
        line.assign(attempts(*jobs))
    return line


def several(
    line: AttemptQueue, page: PageFigures, **more: KillLadder | EndCause | bool | None
) -> list[tuple[str, str, bool]]:
    ladder = more.pop("ladder", None)
    assert ladder is None or isinstance(ladder, KillLadder)
    ladders = {} if ladder is None else dict.fromkeys(ladder.keys, ladder)
    fields = {"was_loading": False, "cause": None, **more}
    result = assign_blame(line, page, ladders=ladders, exit_status=SEGV, stderr_tail="", **fields)  # type: ignore[arg-type]
    return [(end.entry.key[0], end.code, end.is_blame_unknown) for end in result.ends]


def test_a_death_in_a_batch_is_shared_and_the_one_before_lost_its_results() -> None:
    assert several(batched("ab", "cd", "e"), figures(4, 2)) == [
        ("a", "interrupted", False),
        ("b", "interrupted", False),
        ("c", "worker_crashed", True),
        ("d", "worker_crashed", True),
    ]


def test_the_last_of_a_batch_to_be_told_did_not_run_alone() -> None:
    line = batched("ab")
    line.remove_ended(line.entries[0])
    assert several(line, figures(2, 2)) == [("b", "worker_crashed", True)]


def test_a_batch_of_one_and_its_load_are_its_own() -> None:
    assert several(batched("a", "bc"), figures(1, 0)) == [("a", "worker_crashed", False)]
    assert several(batched("ab"), figures(0, 0), was_loading=True) == [("a", "worker_crashed", False)]


def test_one_that_was_cancelled_keeps_that_when_its_batch_dies() -> None:
    soft = KillLadder([("a", 1)], "cancelled", "", now=0.0, grace_s=0.0, flag_only=True)
    assert several(batched("ab"), figures(2, 0), ladder=soft) == [
        ("a", "cancelled", False),
        ("b", "worker_crashed", True),
    ]


def test_a_batch_that_timed_out_did_so_together() -> None:
    both = KillLadder([("a", 1), ("b", 1)], "timeout", "", now=0.0, grace_s=0.0)
    both.skip_all()
    assert several(batched("ab", "c"), figures(2, 0), ladder=both) == [
        ("a", "timeout", True),
        ("b", "timeout", True),
    ]


def test_beside_one_that_is_ended_the_others_are_interrupted_and_else_nobody_knows() -> None:
    line = AttemptQueue(slots=3)
    line.assign(attempts("a", "b", "c"))
    assert [entry.key[0] for entry in line.running(figures(2, 0))] == ["a", "b"]
    assert several(line, figures(2, 0)) == [("a", "worker_crashed", True), ("b", "worker_crashed", True)]
    hard = KillLadder([("b", 1)], "timeout", "", now=0.0, grace_s=0.0)
    hard.skip_all()
    assert several(line, figures(2, 0), ladder=hard) == [("a", "interrupted", False), ("b", "timeout", False)]
    line.remove_ended(line.entries[0])
    assert several(line, figures(2, 1)) == [("b", "worker_crashed", False)]


def test_a_batch_has_its_ordinals_together() -> None:
    line = batched("ab", "c")
    assert (line.first_batch_size(), AttemptQueue().first_batch_size()) == (2, 1)
    assert [entry.key[0] for entry in line.running(figures(3, 2))] == ["c"]
    assert line.running(figures(0, 0)) == []


def test_death_while_loading_blames_the_first() -> None:
    expected = [("a", "worker_crashed", True)], ["b"], "worker_crashed"
    assert settled(line_of("a", "b"), figures(0, 0), loading=True) == expected


def test_own_kill_keeps_its_reason() -> None:
    ladder = KillLadder([("a", 1)], "timeout", "", now=0.0, grace_s=0.0)
    kill = EndCause("memory_exceeded", "too much")
    assert settled(line_of("a", "b"), figures(1, 0), ladder=ladder, cause=kill)[0] == [
        ("a", "timeout", False)
    ]
    assert settled(line_of("a"), figures(1, 0), cause=kill)[0] == [("a", "memory_exceeded", False)]


def test_attempt_that_slipped_in_behind_a_ladder_costs_nothing() -> None:
    ladder = KillLadder([("a", 1)], "timeout", "", now=0.0, grace_s=0.0)
    assert ladder.pop_due(9.0) is KillRung.FLAG and ladder.pop_due(9.0) is KillRung.RAISE
    line = line_of("a", "b")
    line.remove_ended(line.entries[0])
    assert settled(line, figures(2, 1), ladder=ladder) == ([("b", "interrupted", False)], [], "timeout")


def test_figures_beyond_the_line_do_no_harm() -> None:
    assert settled(line_of("a"), figures(99, 0))[0] == [("a", "worker_crashed", True)]


def test_cancelled_one_leaves_the_line_and_the_others_come_back() -> None:
    line, recalls = line_of("a", "b", "c", "d"), Recalls()
    recalls.cancel_when_returned(CancelAttempt("c", 1, "cancelled", "first", 9.0))
    recalls.cancel_when_returned(CancelAttempt("c", 1, "cancelled", "second", 0.5))
    recalls.on_recall_sent(requested=False)
    outcome = recalls.on_recalled([("b", 1), ("c", 1), ("d", 1)], line)
    assert [entry.key[0] for entry in line.entries] == ["a"]
    assert [entry.key[0] for entry in outcome.returned] == ["b", "d"]
    assert [(order.message, order.grace_s) for _, order in outcome.cancelled] == [("first", 0.5)]
    assert not outcome.was_requested


def test_cancelled_one_that_had_started_gets_the_ladder() -> None:
    line, recalls = line_of("a", "b"), Recalls()
    recalls.cancel_when_returned(CancelAttempt("a", 1, "cancelled", ""))
    recalls.on_recall_sent(requested=False)
    outcome = recalls.on_recalled([("b", 1)], line)
    assert [entry.key[0] for entry, _ in outcome.started] == ["a"]


def test_outbox_numbers_survive_a_new_link() -> None:
    outbox = Outbox()
    for text in (b"1", b"2", b"3"):
        outbox.add(text)
    assert outbox.peek() == (1, [b"1", b"2", b"3"])
    outbox.mark_sent(2)
    assert outbox.peek() == (3, [b"3"])
    outbox.acknowledge(1)
    outbox.rewind()
    assert outbox.peek() == (2, [b"2", b"3"])
    outbox.acknowledge(99)
    assert (len(outbox), outbox.nbytes, outbox.has_unsent) == (0, 0, False)
    outbox.add(b"4")
    assert outbox.peek() == (4, [b"4"])


def test_outbox_is_full_by_bytes_until_they_are_acknowledged() -> None:
    outbox = Outbox()
    outbox.add(b"x" * WINDOW_BYTES)
    assert not outbox.is_full
    outbox.add(b"y")
    assert outbox.is_full
    outbox.mark_sent(1)
    outbox.acknowledge(1)
    assert not outbox.is_full


def test_lines_are_cut_and_decoded_with_care() -> None:
    stream = OutputStream("stdout")
    assert stream.feed(b"one\ntw") == ["one"]
    assert stream.feed(b"o\n\xff\n") == ["two", "\ufffd"]
    long = "\u20ac" * LINE_MAX_BYTES
    pieces = stream.feed(long.encode() + b"\n")
    assert "".join(pieces) == long and all(len(piece.encode()) <= LINE_MAX_BYTES for piece in pieces)


def test_marker_parts_the_bytes_of_two_attempts() -> None:
    stream = OutputStream("stdout")
    stream.defer(b"mine MA", 1)
    assert stream.split_at_marker(b"MARK") is None
    stream.defer(b"RKhis", 2)
    stream.defer(b" third", 3)
    assert stream.split_at_marker(b"MARK") == ["mine "]
    assert stream.finish_attempt(2) == ["his"]
    assert stream.feed_deferred() == [] and stream.finish_attempt(3) == [" third"]


def test_late_marker_is_no_output() -> None:
    stream = OutputStream("stdout")
    stream.ignore_marker(b"MARK")
    assert stream.feed(b"MARKtext\n") == ["text"]


@pytest.mark.parametrize(
    ("status", "oom_kills", "expected"),
    [
        (0, 0, ExitStatus(None, 0)),
        (3, 1, ExitStatus(None, 3)),
        (-11, 1, SEGV),
        (-9, 0, ExitStatus("SIGKILL", None)),
        (-9, 1, ExitStatus("SIGKILL", None, True)),
        (-60, 0, ExitStatus("signal 60", None)),
    ],
)
def test_verdict(status: int, oom_kills: int, expected: ExitStatus) -> None:
    assert exit_status.from_returncode(status, oom_kills=oom_kills) == expected

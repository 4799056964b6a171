"""Pure: what a worker remembers of attempts and of messages on their way."""

from __future__ import annotations

from runner.protocol.worker import AttemptSpec, CancelAttempt
from runner.worker.outbox import FRAME_BYTES, Outbox
from runner.worker.processes.page_figures import PageFigures
from runner.worker.supervision.attempts import AssignedAttempt, AttemptQueue
from runner.worker.supervision.exit_status import ExitStatus
from runner.worker.supervision.recalls import Recalls


def line_of(*jobs: str) -> AttemptQueue:
    line = AttemptQueue()
    line.assign([AttemptSpec(job, 1, "h", b"null", None, None) for job in jobs])
    return line


def names(entries: list[AssignedAttempt]) -> list[str]:
    return [entry.key[0] for entry in entries]


def test_ordinals_count_what_ended_and_close_over_what_was_dropped() -> None:
    line = line_of("a", "b", "c", "d")
    a, b, c, d = line.entries
    line.remove_ended(a)
    assert (line.ordinal_of(b), line.ordinal_of(d)) == (2, 4)
    assert line.counts() == (1, 4)
    line.remove_unstarted(c)
    assert (names(line.entries), line.ordinal_of(d)) == (["b", "d"], 3)
    assert line.counts() == (1, 3)


def test_a_line_holds_all_whose_end_or_return_was_not_told() -> None:
    line = line_of("a", "b")
    line.remove_ended(line.entries[0])
    assert line.unreported_attempts() == [("b", 1)]
    line.withheld.append(("a", 1))
    line.not_started.append(("c", 2))
    assert line.unreported_attempts() == [("b", 1), ("a", 1), ("c", 2)]


def test_what_the_page_counts_as_started_no_longer_waits() -> None:
    line = line_of("a", "b", "c")
    running = PageFigures(2, 0.0, 1, 0.0)
    started = line.last_started(running)
    assert started is not None
    assert started.key == ("b", 1)
    assert names(line.unstarted_attempts(running)) == ["c"]
    line.remove_ended(line.entries[0])
    assert names(line.unstarted_attempts(running)) == ["c"]


def test_an_attempt_whose_start_was_reported_runs_whatever_the_page_says() -> None:
    line = line_of("a", "b")
    written_over = PageFigures(0, 0.0, 0, 0.0)
    assert line.running(written_over) == []
    line.entries[0].is_start_sent = True
    assert names(line.running(written_over)) == ["a"]


def test_nothing_has_started_at_an_idle_executor() -> None:
    assert line_of("a").last_started(PageFigures(0, 0.0, 0, 0.0)) is None
    assert line_of().find(("a", 1)) is None


def test_one_that_ended_before_the_answer_to_its_recall_is_let_go() -> None:
    line, recalls = line_of("a"), Recalls()
    recalls.cancel_when_returned(CancelAttempt("gone", 1, "cancelled", ""))
    recalls.on_recall_sent(requested=True)
    outcome = recalls.on_recalled([("unknown", 1)], line)
    assert (outcome.cancelled, outcome.started, outcome.returned) == ([], [], [])
    assert outcome.was_requested


def test_a_cancel_waits_for_the_answer_to_the_last_recall() -> None:
    line, recalls = line_of("a", "b"), Recalls()
    recalls.on_recall_sent(requested=True)
    recalls.cancel_when_returned(CancelAttempt("a", 1, "cancelled", ""))
    recalls.on_recall_sent(requested=False)
    assert recalls.on_recalled([("b", 1)], line).started == []
    assert names([entry for entry, _ in recalls.on_recalled([], line).started]) == ["a"]


def test_a_frame_closes_with_the_message_that_fills_it() -> None:
    outbox = Outbox()
    for message in (b"x" * FRAME_BYTES, b"y", b"z"):
        outbox.add(message)
    first, chosen = outbox.peek()
    assert (first, [len(message) for message in chosen]) == (1, [FRAME_BYTES, 1])
    outbox.mark_sent(2)
    assert outbox.peek() == (3, [b"z"])
    outbox.mark_sent(1)
    assert not outbox.has_unsent


def test_the_newest_message_keeps_its_number_when_it_is_acknowledged() -> None:
    outbox = Outbox()
    assert outbox.last_seq == 0
    outbox.add(b"1")
    outbox.add(b"2")
    assert outbox.last_seq == 2
    outbox.mark_sent(2)
    outbox.acknowledge(2)
    assert (outbox.last_seq, len(outbox)) == (2, 0)


def test_what_is_not_acknowledged_is_kept_in_order_whether_sent_or_not() -> None:
    outbox = Outbox()
    for message in (b"1", b"2", b"3"):
        outbox.add(message)
    outbox.mark_sent(2)
    outbox.acknowledge(1)
    assert (outbox.unacknowledged_messages(), len(outbox), outbox.nbytes) == ([b"2", b"3"], 2, 2)
    outbox.rewind()
    outbox.acknowledge(9)
    assert (outbox.unacknowledged_messages(), outbox.nbytes, outbox.is_full) == ([], 0, False)


def test_a_death_says_by_what_and_at_what() -> None:
    assert ExitStatus("SIGKILL", None, was_oom_kill=True).message("loading") == (
        "the executor was killed by SIGKILL (the kernel's out-of-memory killer) while loading"
    )
    assert ExitStatus(None, 3).message("idle") == "the executor exited with code 3 while idle"

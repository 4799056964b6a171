"""Pure: each kind of fault in a history is found, and a history without one is clean."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import judge as judge_package
from benchmarks.soak.judge.history import BadHistory, read_history
from benchmarks.soak.judge.verdict import judge

Record = dict[str, Any]
Change = Callable[[list[Record]], None]
ROOT = Path(__file__).resolve().parents[2]


def _view(job: str, state: str, attempt: int, **more: Any) -> Record:
    return {"job": job, "tag": f"tag-{job}", "state": state, "attempt": attempt, **more}


def _succeeded(job: str, attempt: int) -> Record:
    return _view(job, "succeeded", attempt, digest="d", parts=[[f"tag-{job}", job, attempt]])


def _event(event_id: int, name: str, digest: str = "", **facts: Any) -> list[Any]:
    return [name, event_id, digest or f"digest-{event_id}", facts]


SNAPSHOT: list[Any] = ["snapshot", None, "s", {}]


def _clean() -> list[Record]:
    """Two jobs: `a` succeeds in its second attempt, `b` is cancelled, retried, succeeds, and is deleted."""
    return [
        {"call": "submit", "tag": "tag-a", "start": 1.0, "end": 1.1, "status": 202, "job": "a",
         "view": _view("a", "queued", 0)},
        {"call": "submit", "tag": "tag-b", "start": 1.2, "end": 1.3, "status": 202, "job": "b"},
        {"call": "submit", "tag": "tag-refused", "start": 1.2, "end": 1.3, "status": 503},
        {"call": "submit", "tag": "tag-unknown", "start": 1.2, "end": 1.3, "status": None},
        {"call": "execution", "job": "a", "attempt": 1, "start": 2.0, "end": None, "waited_s": 0.0},
        {"call": "get", "job": "a", "start": 2.1, "end": 2.2, "status": 200,
         "view": _view("a", "running", 1)},
        {"call": "cancel", "job": "b", "start": 2.3, "end": 2.4, "status": 200,
         "view": _view("b", "cancelled", 0, code="cancelled")},
        {"call": "stream", "job": "a", "after": None, "start": 2.0, "end": 3.0, "status": 200, "how": "cut",
         "events": [SNAPSHOT, _event(1, "log"), _event(2, "log")]},
        {"call": "fault", "what": "kill worker", "start": 2.9, "end": 3.0},
        {"call": "execution", "job": "a", "attempt": 2, "start": 4.0, "end": 5.0, "waited_s": 0.01},
        {"call": "retry", "job": "b", "start": 4.0, "end": 4.1, "status": 202,
         "view": _view("b", "queued", 0)},
        {"call": "execution", "job": "b", "attempt": 1, "start": 4.2, "end": 4.3, "waited_s": 0.0},
        {"call": "list", "path": "/v1/jobs?limit=5", "start": 5.5, "end": 5.6, "status": 200,
         "views": [_succeeded("b", 1), _view("a", "succeeded", 2)]},
        {"call": "stream", "job": "a", "after": 2, "start": 3.5, "end": 5.6, "status": 200, "how": "closed",
         "events": [SNAPSHOT, _event(3, "log"), _event(4, "done", state="succeeded", attempt=2)]},
        {"call": "stream", "job": "a", "after": 4, "start": 5.7, "end": 5.8, "status": 204},
        {"call": "list", "path": "/v1/jobs?order=asc&limit=5", "start": 5.8, "end": 5.9, "status": 200,
         "views": [_succeeded("a", 2), _succeeded("b", 1)]},
        {"call": "list", "path": "/v1/jobs?tag=tag-unknown", "start": 5.8, "end": 5.9, "status": 200,
         "views": []},
        {"call": "get", "job": "a", "start": 6.0, "end": 6.1, "status": 200, "view": _succeeded("a", 2)},
        {"call": "attempts", "job": "a", "start": 6.1, "end": 6.2, "status": 200,
         "attempts": [[1, "T02", "T03"], [2, "T04", "T05"]]},
        {"call": "delete", "job": "b", "start": 7.0, "end": 7.1, "status": 204},
        {"call": "get", "job": "b", "start": 7.2, "end": 7.3, "status": 404},
        {"call": "complete", "start": 9.0},
    ]  # fmt: skip


def _judge(records: list[Record]) -> list[str]:
    return judge(read_history(json.dumps(record) for record in records)).wrong


def _find(records: list[Record], call: str, **known: Any) -> Record:
    return next(
        record
        for record in records
        if record["call"] == call and all(record.get(name) == value for name, value in known.items())
    )


def added(call: str, job: str, start: float, **more: Any) -> Change:
    """A call that takes 0.1 s, besides the others."""
    record = {"call": call, "job": job, "start": start, "end": start + 0.1, "status": 200, **more}
    return lambda records: records.append(record)


def executed(job: str, attempt: int, start: float, end: float | None, waited_s: float = 0.0) -> Change:
    record = {
        "call": "execution", "job": job, "attempt": attempt, "start": start, "end": end, "waited_s": waited_s,
    }  # fmt: skip
    return lambda records: records.append(record)


def streamed(job: str, *events: list[Any], start: float = 8.0, **more: Any) -> Change:
    return added("stream", job, start, **{"after": None, "how": "cut", "events": [SNAPSHOT, *events], **more})


def listed(path: str, start: float, *views: Record) -> Change:
    record = {"call": "list", "path": path, "start": start, "end": start + 0.1, "status": 200}
    return lambda records: records.append({**record, "views": list(views)})


def faulted(what: str, start: float) -> Change:
    record = {"call": "fault", "what": what, "start": start, "end": start + 0.1}
    return lambda records: records.append(record)


def all_of(*changes: Change) -> Change:
    def change_all(records: list[Record]) -> None:
        for change in changes:
            change(records)

    return change_all


def removed(call: str, **known: Any) -> Change:
    return lambda records: records.remove(_find(records, call, **known))


def without_end(records: list[Record]) -> None:
    """Nobody has seen the end of `a`."""
    for record in list(records):
        if record["call"] == "list" or (record.get("job") == "a" and record["start"] > 5.0):
            records.remove(record)


WHOLE = [_event(number, "log") for number in range(1, 4)]
DONE = _event(4, "done", state="succeeded", attempt=2)
FAULTS: dict[str, tuple[str, Change]] = {
    "a lost job": ("lost: it was accepted, nobody", added("get", "a", 8.0, status=404)),
    "a lost job's stream": (
        "lost: it was accepted, nobody", added("stream", "a", 8.0, status=404, after=None),
    ),
    "a job that does not end": ("lost: it was accepted and nobody has seen its end", without_end),
    "a job whose stream does not end": ("done: none", removed("stream", job="a", how="closed", status=200)),
    "a deleted job that is there": ("back:", added("get", "b", 8.0, view=_succeeded("b", 1))),
    "a deleted job in a list": ("back:", listed("/v1/jobs?order=asc", 8.0, _succeeded("b", 1))),
    "a deleted job that streams": ("back:", streamed("b", start=8.0)),
    "another end": ("end: it was seen as succeeded", added("get", "a", 8.0, view=_view("a", "failed", 2))),
    "another output": (
        "end: it was seen as succeeded",
        added("get", "a", 8.0, view=_succeeded("a", 2) | {"digest": "e"}),
    ),
    "two ends in a stream": (
        "end: 2 ends were told", streamed("a", *WHOLE, DONE, _event(5, "done", state="failed")),
    ),
    "a stream that says another end": (
        "end: its stream said failed",
        lambda records: _find(records, "stream", after=2)["events"][-1][3].update(state="failed"),
    ),
    "an older state by a get": ("order: a list", added("get", "a", 8.0, view=_view("a", "running", 2))),
    "an older state in a list": (
        "order: a list had shown succeeded in attempt 2 by 5.600, and a list at 8.000 showed queued",
        listed("/v1/jobs?tag=tag-a", 8.0, _view("a", "queued", 1)),
    ),
    "a first attempt that is forgotten": (
        "order: a get", added("get", "a", 2.5, view=_view("a", "queued", 0)),
    ),
    "a cancelled job that succeeds": ("cancel: it was answered 200", removed("retry", job="b")),
    "a job being cancelled that succeeds": (
        "cancel: it was answered 202",
        added("cancel", "a", 2.3, status=202, view=_view("a", "running", 1)),
    ),
    "a job being cancelled that runs again": (
        "cancel: it was answered 202 at 2.400 in attempt 1, and attempt 2 ran (",
        all_of(
            added("cancel", "a", 2.3, status=202, view=_view("a", "running", 1)),
            lambda records: _find(records, "get", start=6.0).update(view=_view("a", "cancelled", 2)),
            removed("list", path="/v1/jobs?limit=5"),
            removed("list", path="/v1/jobs?order=asc&limit=5"),
        ),
    ),
    "an attempt that runs twice": ("twice: attempt 2 was executed twice", executed("a", 2, 5.1, 5.2)),
    "a first attempt that runs twice": ("twice: attempt 1 was executed twice", executed("a", 1, 2.5, None)),
    "an attempt that nobody knows": ("twice: attempt 3 was executed, and", executed("a", 3, 5.1, 5.2)),
    "attempts side by side": ("overlap: attempts 2 and 3 ran", executed("a", 3, 4.5, 5.2)),
    "an attempt beside a killed one": ("overlap: attempt 3 waited 1.5 s", executed("a", 3, 5.1, 7.2, 1.5)),
    "attempts that overlap in their times": (
        "overlap: attempt 2 began at T02",
        added("attempts", "a", 8.0, attempts=[[1, "T01", "T03"], [2, "T02", "T05"]]),
    ),
    "attempts that skip a number": (
        "overlap: attempt 3 follows attempt 1",
        added("attempts", "a", 8.0, attempts=[[1, "T01", "T03"], [3, "T04", "T05"]]),
    ),
    "an output of another input": (
        "output:",
        lambda records: _find(records, "get", job="a", start=6.0)["view"].update(parts=[["tag-b", "a", 2]]),
    ),
    "an output of another attempt": (
        "output:",
        lambda records: _find(records, "get", job="a", start=6.0)["view"].update(parts=[["tag-a", "a", 1]]),
    ),
    "an event that comes twice": ("stream: event 1 came behind", streamed("a", WHOLE[0], WHOLE[0])),
    "events out of order": ("stream: event 2 came behind event 3", streamed("a", *WHOLE, WHOLE[1])),
    "a missing event": ("stream: events 2 to 2 are missing", streamed("a", WHOLE[0], WHOLE[2])),
    "an event missing behind the cursor": ("stream: events 2 to 2", streamed("a", WHOLE[2], after=1)),
    "a gap elsewhere": (
        "stream: a gap from 1 to 1",
        streamed("a", WHOLE[0], ["gap", None, "", {"from": 1, "to": 1}]),
    ),
    "a stream without a snapshot": (
        "stream: it began with log",
        lambda records: _find(records, "stream", after=2)["events"].pop(0),
    ),
    "a stream that is closed too early": ("stream: it was closed", streamed("a", *WHOLE, how="closed")),
    "an event that changes": ("meaning: event 2", streamed("a", WHOLE[0], _event(2, "log", "other"))),
    "an event that becomes another": (
        "meaning: event 2", streamed("a", WHOLE[0], _event(2, "output", "digest-2")),
    ),
    "a stream that ends before what was seen": (
        "reach: a stream ended with event 3, and event 4",
        streamed("a", *WHOLE[:2], _event(3, "done", state="succeeded"), how="closed"),
    ),
    "an early 204": ("reach: a stream behind event 2", added("stream", "a", 8.0, after=2, status=204)),
    "a job that is missing in a list of its tag": ("list: it is missing", listed("/v1/jobs?tag=tag-a", 8.0)),
    "a new job that is missing in a list": (
        "list: it is missing",
        listed("/v1/jobs?limit=5", 6.0, _view("a", "succeeded", 2)),
    ),
    "a list out of order": (
        "list: it is newer than a and not listed so",
        listed("/v1/jobs?limit=5", 6.0, _view("a", "succeeded", 2), _succeeded("b", 1)),
    ),
    "a job of nobody": ("stranger: nobody", added("get", "c", 8.0, view=_view("c", "queued", 0))),
    "a job that changes its tag": (
        "stranger: it was seen with the tags",
        added("get", "a", 8.0, view=_view("a", "succeeded", 2) | {"tag": "tag-b"}),
    ),
    "a submit that becomes two jobs": (
        "twice: the one submit 'tag-a' became",
        added("get", "c", 8.0, view=_view("c", "queued", 0) | {"tag": "tag-a"}),
    ),
}  # fmt: skip
EXCUSED: dict[str, Change] = {
    "a delete without an answer": all_of(
        added("delete", "a", 7.0, status=None), added("get", "a", 8.0, status=404)
    ),
    "a first attempt that runs again when the coordinator has died": all_of(
        faulted("kill coordinator", 2.3),
        executed("a", 1, 2.5, None),
        added("get", "a", 2.5, view=_view("a", "queued", 0)),
    ),
    "a gap that was announced": streamed("a", ["gap", None, "", {"from": 1, "to": 2}], WHOLE[2]),
    "a stream that a restart has closed": all_of(
        faulted("restart", 8.0), streamed("a", *WHOLE, how="closed")
    ),
    "an attempt that is recalled before its start": all_of(
        added("get", "a", 3.5, view=_view("a", "running", 2)),
        added("get", "a", 3.7, view=_view("a", "queued", 2)),
        added("get", "a", 3.9, view=_view("a", "running", 2)),
    ),
    "an execution of a job that was deleted before its end was seen": all_of(
        executed("c", 1, 2.0, 2.1),
        added("submit", "c", 1.4, tag="tag-c", view=_view("c", "queued", 0)),
        added("delete", "c", 2.2, status=204),
    ),
    "a retry that begins another life": all_of(
        added("retry", "a", 6.5),
        added("get", "a", 6.8, view=_view("a", "queued", 2)),
        executed("a", 3, 7.0, 7.1),
        added("get", "a", 8.0, view=_view("a", "failed", 3, code="handler_error")),
        streamed("a", *WHOLE, DONE, _event(5, "done", state="failed"), how="closed"),
    ),
    "a retry without an answer": all_of(
        added("retry", "a", 6.5, status=None),
        added("get", "a", 6.8, view=_view("a", "running", 3)),
        added("get", "a", 8.0, view=_view("a", "failed", 3, code="handler_error")),
    ),
    "a history that was cut off": all_of(without_end, removed("complete")),
}


def test_a_clean_history_has_nothing_wrong() -> None:
    assert _judge(_clean()) == []


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_fault_is_found(name: str) -> None:
    words, change = FAULTS[name]
    records = _clean()
    change(records)
    assert [text for text in _judge(records) if text.startswith(words)], _judge(records)


@pytest.mark.parametrize("name", EXCUSED)
def test_what_may_be_is_not_wrong(name: str) -> None:
    records = _clean()
    EXCUSED[name](records)
    assert _judge(records) == []


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"call": "get", "start": 1.0}', '{"call": "dance", "start": 1.0}']
)
def test_what_is_no_history_is_refused(line: str) -> None:
    with pytest.raises(BadHistory):
        read_history([line])


def test_a_stored_history_is_judged_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    command = [sys.executable, "-m", "benchmarks.soak.judge", str(path)]
    records = _clean()
    for status, words in ((0, "nothing is wrong"), (1, "lost: it was accepted, nobody")):
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        judged = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (judged.returncode, judged.stderr) == (status, "")
        assert words in judged.stdout
        records.append({"call": "get", "job": "a", "start": 8.0, "end": 8.1, "status": 404})
    path.write_text("{")
    judged = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert judged.returncode == 2 and "line 1" in judged.stderr


def test_the_judge_shares_no_code_with_what_it_judges() -> None:
    for path in Path(*judge_package.__path__).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names or name.startswith(
                    "benchmarks.soak.judge"
                ), f"{path.name} imports {name}"

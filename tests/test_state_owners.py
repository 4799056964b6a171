"""The state of some classes changes through their methods alone: nobody else assigns their fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: The folders whose files are checked.
FOLDERS = ("runner/coordinator", "tests/runner/coordinator")
#: The file of a class -> the fields that only its methods assign. The name of a field decides, so no other
#: class of these folders may let others assign a field of that name.
STATE_FIELDS = {
    "runner/coordinator/dispatch/executor_handle.py": {
        "attempts",
        "devices",
        "grant_bytes",
        "is_batched",
        "is_closing",
        "is_grant_fixed",
        "is_loaded",
        "is_retired",
        "jobs_done",
        "largest_peak_bytes",
        "meter",
        "sent_count",
        "was_grant_lowered",
    },
    "runner/coordinator/jobs/job_registry.py": {
        "attempt_in_flight",
        "end_callbacks",
        "executor",
        "first_start_seq",
        "has_unused_attempt",
        "input",
        "job_class",
        "meter_start",
        "output",
        "phase",
        "previous_started_at",
        "running_since_mono",
    },
}


#: (variable, field): what other classes let others assign all the same.
NOT_STATE = {("job", "attempts"), ("group", "job_class")}


@pytest.mark.parametrize("owner", STATE_FIELDS)
def test_only_the_owner_of_a_state_assigns_it(owner: str) -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert ROOT / owner in paths
    assert [
        f"{path.relative_to(ROOT)}:{line} assigns {field}"
        for path in paths
        for line, field in assigned_from_outside(path.read_text(encoding="utf-8"))
        if field in STATE_FIELDS[owner]
    ] == []


@pytest.mark.parametrize("owner", STATE_FIELDS)
def test_every_field_of_a_state_exists(owner: str) -> None:
    text = (ROOT / owner).read_text(encoding="utf-8")
    stored = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert STATE_FIELDS[owner] <= stored


@pytest.mark.parametrize(
    "statement",
    [
        "executor.is_closing = True",
        "executor.sent_count -= 1",
        "executor.grant_bytes: int = 1",
        "executors[1].is_loaded, other = True, 1",
        "executor.attempts[1] = live",
        "del executor.attempts[1]",
        "for executor.meter in (): pass",
        "(executor := f()).jobs_done = 1",
        "setattr(executor, 'is_closing', True)",
    ],
)
def test_an_assignment_from_outside_is_seen(statement: str) -> None:
    assert [field for _, field in assigned_from_outside(statement)] in (
        [field] for field in STATE_FIELDS["runner/coordinator/dispatch/executor_handle.py"]
    )


@pytest.mark.parametrize(
    "statement", ["self.is_closing = True", "count = executor.sent_count", "executor.mark_closing()"]
)
def test_reading_and_assigning_in_the_owner_are_allowed(statement: str) -> None:
    assert list(assigned_from_outside(statement)) == []


def assigned_from_outside(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, field) of each assignment to a field of another object than `self`, or to its items."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(ast.expr() as target, field, ast.Store() | ast.Del()):
                pass
            case ast.Subscript(ast.Attribute(target, field), _, ast.Store() | ast.Del()):
                pass
            case ast.Call(ast.Name("setattr" | "delattr"), [target, ast.Constant(str() as field), *_]):
                pass
            case _:
                continue
        variable = target.id if isinstance(target, ast.Name) else ""
        if variable != "self" and (variable, field) not in NOT_STATE:
            yield node.lineno, field

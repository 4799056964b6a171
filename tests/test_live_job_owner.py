"""Only LiveJob's own file assigns the attributes of a live job: all others call its methods."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COORDINATOR = ROOT / "runner/coordinator"
OWNER = COORDINATOR / "jobs/job_registry.py"
#: Objects that have an attribute of the same name and are no live job.
OTHERS = {"components.front.readiness", "group"}


def test_only_its_own_file_assigns_the_state_of_a_live_job() -> None:
    slots = slots_of(OWNER.read_text(encoding="utf-8"))
    assert {"phase", "executor", "attempt_in_flight", "job_class", "end_callbacks"} <= slots
    assert [
        f"{path.relative_to(ROOT)}:{found}"
        for path in sorted(COORDINATOR.rglob("*.py"))
        if path != OWNER
        for found in assignments(path.read_text(encoding="utf-8"), slots)
    ] == []


def test_every_way_to_assign_is_seen() -> None:
    text = """
live.phase = "waiting"
self.live.phase: JobPhase = "waiting"
live.executor, count = None, 1
(a, b), jobs[0].input = c, None
live.attempt_in_flight += 1
del live.output
for live.phase in phases: pass
setattr(live, "phase", "waiting")
"""
    assert assignments(text, {"phase", "executor", "input", "attempt_in_flight", "output"}) == [
        "2 live.phase",
        "3 self.live.phase",
        "4 live.executor",
        "5 jobs[0].input",
        "6 live.attempt_in_flight",
        "7 live.output",
        "8 live.phase",
        "9 setattr(live, 'phase', 'waiting')",
    ]


def test_reading_and_own_attributes_are_no_assignments() -> None:
    text = 'self.phase = live.phase\ncomponents.front.readiness.phase = "ready"\nlive.job.state = "queued"\n'
    assert assignments(text, {"phase", "job"}) == []


def slots_of(text: str) -> set[str]:
    """The names in `LiveJob.__slots__`."""
    (owner,) = [
        node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == "LiveJob"
    ]
    (value,) = [
        node.value
        for node in owner.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"
    ]
    slots: tuple[str, ...] = ast.literal_eval(value)
    return set(slots)


def assignments(text: str, names: set[str]) -> list[str]:
    """Line and text of each assignment to an attribute with one of these names, except a class's own, and of
    each `setattr`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            owner = ast.unparse(node.value)
            if node.attr in names and owner != "self" and owner not in OTHERS:
                found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "object.__setattr__"):
            found.append((node.lineno, ast.unparse(node)))
    return [f"{line} {text}" for line, text in sorted(found)]

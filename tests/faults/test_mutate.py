from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.faults.mutate import (
    MARKER,
    PROGRAM,
    ROOT,
    Change,
    Guarded,
    always,
    early,
    guards,
    mutated,
    never,
    once,
    removed,
    replaced,
    swapped,
    unless,
    value,
)

FORMS = (always, early, never, once, removed, replaced, swapped, unless, value)
SOURCE = dedent(
    """
    LIMIT = 10  # guard: limit

    def first(ours: str = "/proc") -> int:  # guard: path
        if len("é") and ours:  # guard: condition
            return LIMIT
        elif not ours:  # guard: other
            return 0
        print(
            ours,  # guard: argument
            LIMIT,
        )  # guard: call
        return (
            len(ours)
            - LIMIT  # guard: operand
        )
    """
)


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (value("limit", "9"), "LIMIT = 10", "LIMIT = 9"),
        (value("limit", "{} + 1"), "LIMIT = 10", "LIMIT = (10) + 1"),
        (never("condition"), 'if len("é") and ours', "if False"),
        (always("other"), "elif not ours", "elif True"),
        (value("argument", "None"), "        ours,  #", "        None,  #"),
        (value("operand", "0"), "- LIMIT", "- 0"),
        (swapped("path", "/proc", "/tmp"), '"/proc"', '"/tmp"'),
        (replaced("limit", "LIMIT = set()"), "LIMIT = 10", "LIMIT = set()"),
        (unless("call", "LIMIT"), "    print(", "    if not (LIMIT): print("),
        (early("limit", before="condition"), "    if len", "    LIMIT = 10\n    if len"),
    ],
)
def test_a_change_is_made_to_what_its_marker_is_about(change: Change, old: str, new: str) -> None:
    assert SOURCE.count(old) == 1
    assert change.edit(Guarded(SOURCE, change.guard)) == SOURCE.replace(old, new)


def test_an_if_is_removed_with_all_that_depends_on_it_and_a_call_with_all_its_lines() -> None:
    without_if = removed("condition").edit(Guarded(SOURCE, "condition"))
    assert "    pass\n    print(" in without_if and "elif" not in without_if
    assert "print" not in removed("call").edit(Guarded(SOURCE, "call"))


def test_what_is_done_once_is_not_done_again() -> None:
    scope: dict[str, object] = {"calls": []}
    source = "def call():\n    calls.append(1)  # guard: counted\n"
    exec(once("counted").edit(Guarded(source, "counted")) + "call()\ncall()\n", scope)
    assert scope["calls"] == [1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (value("nowhere", "1"), "0 times"),
        (value("limit", "10"), "changes nothing"),
        (value("limit", "gone + 1"), "gone"),
        (swapped("path", "nowhere", "x"), "0 times"),
        (value("path", "1"), "3 expressions"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(change: Change, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        change.edit(Guarded(SOURCE, change.guard))


def test_a_guard_that_is_not_in_the_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="`# guard: nowhere` 0 times"):
        mutated(tmp_path, [never("nowhere")])


def test_a_child_with_the_copy_on_its_path_imports_the_copy(tmp_path: Path) -> None:
    tree = mutated(tmp_path, [value("protocol", "77")])
    program = "from runner.protocol import worker; import runner, gpu; "
    program += "print(worker.PROTOCOL, runner.__file__, gpu.__path__)"
    env = {**os.environ, "PYTHONPATH": str(tree)}
    printed = subprocess.run(
        [sys.executable, "-P", "-c", program], env=env, cwd="/", capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith(f"77 {tree}/runner/__init__.py") and f"{tree}/gpu" in printed


def test_every_guard_of_the_program_has_a_name_of_its_own_and_a_mutation() -> None:
    marked = Counter(guard for _, guard in guards())
    assert not [guard for guard, times in marked.items() if times > 1]
    assert set(marked) == set(_mutations())


def test_every_marker_is_written_so_that_it_is_found() -> None:
    lines = [
        line
        for folder in PROGRAM
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if "guard:" in line
    ]
    assert [line for line in lines if not MARKER.search(line)] == []


def _mutations() -> Iterator[str]:
    """The guards that tests change."""
    names = {form.__name__ for form in FORMS}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "before")]
                yield from (str(each.value) for each in given if isinstance(each, ast.Constant))

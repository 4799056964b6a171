"""Effect: reads docs/reliability.md: the tests it names exist, and every test file of faults is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "reliability.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
#: Shows nothing of the server: it tests a tool of the other tests.
NO_FAULT = {"tests/faults/test_mutate.py"}


def rows() -> list[list[str]]:
    """The cells of each row, heads and rules left out."""
    cells = [line.strip("|").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in row]
        for row in cells
        if row[0].strip() not in ("what happens", "guarantee", "event", "---")
    ]


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_fault_names_a_test_that_exists() -> None:
    found = rows()
    assert len(found) >= 40
    for row in found:
        assert len(row) == 3 and all(row), row
        names = NAMED.findall(row[2])
        assert names, f"no test is named for {row[0]!r}"
        for path, name in names:
            assert name in functions(ROOT / path), f"{path} has no {name}"


def test_every_test_file_of_faults_is_in_the_table() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    named = {path for path, _ in NAMED.findall(TABLE.read_text())}
    assert not files - NO_FAULT - named, "say in docs/reliability.md what these show"

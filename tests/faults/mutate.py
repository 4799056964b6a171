"""Effect: a copy of the program with a guard taken out, to prove that a test notices.

A guard is a statement with a comment at its end: `# guard: NAME`; of a compound statement, at the end of its
head. On one line of a statement of several lines the comment marks what stands there alone: an operand or an
argument. Tests name guards, and never quote them, so that the program may be moved about and renamed.
"""

from __future__ import annotations

import ast
import builtins
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("runner", "gpu", "api")
MARKER = re.compile(r"(?<=\S)  # guard: ([a-z0-9]+(?:-[a-z0-9]+)*)$", re.MULTILINE)
Place = ast.stmt | ast.expr


class Guarded:
    """The source of one file and the statement of it that a marker belongs to."""

    def __init__(self, source: str, guard: str) -> None:
        self.guard = guard
        self.source = source
        found = [match.start() for match in MARKER.finditer(source) if match[1] == guard]
        assert len(found) == 1, (
            f"a file holds `# guard: {guard}` {len(found)} times; a mutation needs it once"
        )
        self._lines = source.encode().splitlines(keepends=True)
        self._line = source.count("\n", 0, found[0]) + 1
        around = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.stmt) and node.lineno <= self._line <= (node.end_lineno or 0)
        ]
        assert around, f"`# guard: {guard}` belongs to no statement"
        self.statement = max(around, key=lambda node: node.lineno)

    @property
    def indent(self) -> str:
        return " " * self.statement.col_offset

    def text(self, place: Place) -> str:
        start, end = self._span(place)
        return b"".join(self._lines)[start:end].decode()

    def put(self, place: Place, text: str) -> str:
        """The source with a text in place of a statement or an expression."""
        start, end = self._span(place)
        whole = b"".join(self._lines)
        changed = (whole[:start] + text.encode() + whole[end:]).decode()
        assert changed != self.source, f"the mutation of `# guard: {self.guard}` changes nothing"
        # What was renamed in the program must not live on in a mutation.
        unknown = names(changed) - names(self.source) - set(dir(builtins))
        assert not unknown, f"the mutation of `# guard: {self.guard}` names what is not there: {unknown}"
        return changed

    def expression(self) -> ast.expr:
        """What a statement's marker is about: the condition of an `if`, the value of an assignment or a
        `return`, or the one operand or argument on the marker's line."""
        whole = self._whole()
        if whole is not None and self._is_on_line(whole):
            return whole
        on_line = [
            node for node in ast.walk(self.statement) if isinstance(node, ast.expr) and self._is_on_line(node)
        ]
        inner = {id(child) for node in on_line for child in ast.walk(node) if child is not node}
        outer = [node for node in on_line if id(node) not in inner]
        if whole is not None and not outer:
            return whole
        assert len(outer) == 1, f"`# guard: {self.guard}` belongs to {len(outer)} expressions"
        return outer[0]

    def _whole(self) -> ast.expr | None:
        match self.statement:
            case ast.If() | ast.While():
                return self.statement.test
            case ast.Assign() | ast.AnnAssign() | ast.Return():
                return self.statement.value
        return None

    def _is_on_line(self, node: ast.expr) -> bool:
        return node.lineno == node.end_lineno == self._line

    def _span(self, place: Place) -> tuple[int, int]:
        assert place.end_lineno is not None and place.end_col_offset is not None
        before, until = (sum(map(len, self._lines[: at - 1])) for at in (place.lineno, place.end_lineno))
        return before + place.col_offset, until + place.end_col_offset


def names(source: str) -> set[str]:
    """Every name that a source reads or assigns; raises SyntaxError where it is none."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


class Change(NamedTuple):
    """What is done to the statement of a guard."""

    guard: str
    edit: Callable[[Guarded], str]


def removed(guard: str) -> Change:
    """Nothing is done instead of the statement; of an `if`, with all that depends on it."""
    return Change(guard, lambda at: at.put(at.statement, "pass"))


def never(guard: str) -> Change:
    """The condition is false."""
    return Change(guard, lambda at: at.put(at.expression(), "False"))


def always(guard: str) -> Change:
    """The condition is true."""
    return Change(guard, lambda at: at.put(at.expression(), "True"))


def value(guard: str, text: str) -> Change:
    """Another value is assigned, returned or passed on; `{}` in it is the one that was."""

    def edit(at: Guarded) -> str:
        place = at.expression()
        return at.put(place, text.replace("{}", f"({at.text(place)})"))

    return Change(guard, edit)


def unless(guard: str, condition: str) -> Change:
    """The statement, which has no block, is left out while the condition is true."""
    return Change(guard, lambda at: at.put(at.statement, f"if not ({condition}): {at.text(at.statement)}"))


def once(guard: str) -> Change:
    """The statement, which has no block, is done only the first time in a process."""

    def edit(at: Guarded) -> str:
        done, inner = repr(f"guard: {guard}"), f"\n{at.indent}    "
        lines = [f"if {done} not in globals():", f"globals()[{done}] = True", at.text(at.statement)]
        return at.put(at.statement, inner.join(lines))

    return Change(guard, edit)


def early(guard: str, before: str) -> Change:
    """The statement is done already before that of another guard in its file, as well as in its place."""

    def edit(at: Guarded) -> str:
        other = Guarded(at.source, before)
        text = f"{at.text(at.statement)}\n{other.indent}{other.text(other.statement)}"
        return other.put(other.statement, text)

    return Change(guard, edit)


def swapped(guard: str, old: str, new: str) -> Change:
    """One constant, or name of the standard library, stands in the statement for another."""

    def edit(at: Guarded) -> str:
        text = at.text(at.statement)
        assert text.count(old) == 1, (
            f"the statement of `# guard: {guard}` holds {old!r} {text.count(old)} times"
        )
        return at.put(at.statement, text.replace(old, new))

    return Change(guard, edit)


def replaced(guard: str, text: str) -> Change:
    """Another statement. The last resort: the names in it have to be renamed with those of the program."""
    return Change(guard, lambda at: at.put(at.statement, text))


def mutated(folder: Path, changes: Sequence[Change]) -> Path:
    """A copy of `runner`, `gpu` and `api` under `folder` with the changes made to their guards.

    Put it on PYTHONPATH of a child: that comes before an editable installation. A guard must be there exactly
    once, so that a mutation cannot fall silent when the program changes.
    """
    tree = folder / "mutant"
    for name in PROGRAM:
        # copytree keeps the times of the sources, so that their bytecode stays valid: only a changed file is
        # compiled again. A `*.pyc.*` is a temporary file that another process is about to rename.
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    mutate(tree, changes)
    return tree


def mutate(tree: Path, changes: Sequence[Change]) -> None:
    """Make changes in such a copy."""
    for change in changes:
        paths = [path for path, guard in guards(tree) if guard == change.guard]
        assert len(paths) == 1, (
            f"the program holds `# guard: {change.guard}` {len(paths)} times; a mutation needs it once"
        )
        (path,) = paths
        path.write_text(change.edit(Guarded(path.read_text(), change.guard)))
        # A change in the second of the last one may keep the file's size and time: no bytecode, no doubt.
        Path(cache_from_source(str(path))).unlink(missing_ok=True)


def guards(tree: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Every marker of the program: its file and its name."""
    for folder in PROGRAM:
        for path in sorted((tree / folder).rglob("*.py")):
            for match in MARKER.finditer(path.read_text()):
                yield path, match[1]

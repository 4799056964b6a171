"""The prose of the tree: words that are not used, and how much of it documents the code."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Python code whose texts people read.
PACKAGES = ("runner", "gpu", "api", "examples", "benchmarks")
#: Pages for users and contributors.
PAGES = ("docs/*.md", "examples/*.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
#: Words and phrases that read as translated; a phrase may be broken over two lines.
BANNED = re.compile(
    r"\b(anew|heed(?:s|ed|ing)?|in\s+vain|told\s+of|so\s+many|so\s+often|whoever|befall(?:s|en)?|befell"
    r"|who\s+is\s+to)\b",
    re.IGNORECASE,
)
#: A line break inside a comment or a table, with the mark that begins the next line.
BREAK = re.compile(r"\n[ \t]*(?:#:?)?[ \t]*")
#: Least number of documentation lines for 100 lines of code.
DOCUMENTED = 20.0


def source_files(*packages: str) -> list[Path]:
    """The Python files of packages, in order."""
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """The docstring of every module, class and function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first.value


def comments(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each comment; consecutive lines are one."""
    begin, lines, last = 0, list[str](), -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != last + 1:
            yield begin, "\n".join(lines)
            lines = []
        if not lines:
            begin = token.start[0]
        lines.append(token.string)
        last = token.start[0]
    if lines:
        yield begin, "\n".join(lines)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of comments, and of string literals of several words; a single word is data."""
    yield from comments(source)
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            known = [part.value for part in node.values if isinstance(part, ast.Constant)]
            yield node.lineno, "\0".join(map(str, known))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in parts
            and re.search(r"\w\s+\w", node.value)
        ):
            yield node.lineno, node.value


def page_text(path: Path) -> str:
    """A page; of the glossary without the column that quotes the words that are not used."""
    text = path.read_text()
    if path.name != "glossary.md":
        return text
    rows = [line.split("|") for line in text.split("\n")]
    return "\n".join("|".join([*cells[:3], *cells[4:]] if len(cells) > 5 else cells) for cells in rows)


def banned_in(first_line: int, text: str) -> Iterator[tuple[int, str]]:
    """(line, phrase) of each banned phrase in a text that begins on this line."""
    marked = BREAK.sub(lambda found: "\n" + " " * (len(found[0]) - 1), text)
    for hit in BANNED.finditer(marked):
        yield first_line + marked.count("\n", 0, hit.start()), " ".join(hit[0].split())


def documentation(text: str) -> tuple[int, int]:
    """(documentation lines, code lines): docstrings and `#:`, against all but comments; no blank lines."""
    lines = [line.strip() for line in text.split("\n")]
    docs = {
        number
        for found in docstrings(ast.parse(text))
        for number in range(found.lineno, (found.end_lineno or found.lineno) + 1)
    }
    documented = sum(bool(lines[number - 1]) for number in docs)
    documented += sum(line.startswith("#:") for line in lines)
    code = sum(
        bool(line) and not line.startswith("#") and number not in docs for number, line in enumerate(lines, 1)
    )
    return documented, code


def test_words_that_read_as_translated_are_not_used() -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in source_files(*PACKAGES)
        for first, text in texts(path.read_text())
        for line, phrase in banned_in(first, text)
    ]
    hits += [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for pattern in PAGES
        for path in sorted(ROOT.glob(pattern))
        for line, phrase in banned_in(1, page_text(path))
    ]
    assert not hits, "\n".join([f"{len(hits)} phrases to rewrite:", *hits])


@pytest.mark.parametrize("package", ["runner", "gpu"])
def test_a_fifth_as_many_lines_document_as_are_code(package: str) -> None:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path in source_files(package):
        part = "/".join(path.relative_to(ROOT).parts[:2])
        for at, count in enumerate(documentation(path.read_text())):
            counts[part][at] += count
            counts[package][at] += count
    figures = {name: 100 * docs / max(code, 1) for name, (docs, code) in counts.items()}
    shown = "\n".join(f"{name}: {figure:.1f}" for name, figure in sorted(figures.items()))
    assert figures[package] >= DOCUMENTED, f"documentation lines for 100 lines of code:\n{shown}"


def test_a_phrase_is_found_wherever_it_stands() -> None:
    source = '"""Say it\nso\nmany times."""\n# in\n# vain\nlog(f"{x} is told of {y}")\nNAME = "anew"\n'
    found = [hit for first, text in texts(source) for hit in banned_in(first, text)]
    assert sorted(found) == [(2, "so many"), (4, "in vain"), (6, "told of")]


def test_documentation_is_counted_by_lines() -> None:
    source = '"""One.\n\nTwo.\n"""\n\n#: Three.\nA = 1\n# Why.\nB = 2\n\n\ndef f():\n    """Four."""\n'
    assert documentation(source) == (5, 3)

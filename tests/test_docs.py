"""Effect: reads the documents: what they point at exists, and their tables have what the code has."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.main import get_command

from api.http.query_params import REASONS
from api.routes.routes import build_routes
from runner import Context, handler
from runner.cli.__main__ import build_app
from runner.jobs.job import ErrorCode
from runner.settings.sections import TenantSettings
from runner.settings.settings import SHOWN_NAMES, Settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


@cache
def anchors(path: Path) -> set[str]:
    """The headings as GitHub names them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        file, _, heading = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_are_named_exist(document: Path) -> None:
    for file, name in TEST.findall(document.read_text()):
        assert (ROOT / file).is_file(), file
        assert not name or name in names_in(ROOT / file), f"{file} has no {name}"


def test_broken_links_and_names_would_be_seen() -> None:
    assert LINK.findall("[a](b.md#c) [d](https://e)") == ["b.md#c"]
    assert TEST.findall("`tests/a.py::test_b` and `tests/c.py`") == [
        ("tests/a.py", "test_b"),
        ("tests/c.py", ""),
    ]
    assert "who-goes-first" in anchors(ROOT / "docs" / "scheduling.md")


def table_rows(page: str, columns: int) -> list[list[str]]:
    """Rows of the tables of a page that have this many columns, heads and rules left out."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line[:3] == "| `"]
    return [row for row in rows if len(row) == columns]


def default_text(value: object) -> str:
    """A default as the table of settings writes it."""
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def all_settings() -> dict[str, str]:
    """Name -> default of every setting, as users know them."""
    found = {"handlers.NAME": "none", "tenants.NAME.weight": default_text(TenantSettings().weight)}
    shown = {**SHOWN_NAMES, "overrides": "", "tenants": ""}
    for field, info in Settings.model_fields.items():
        default = info.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            found |= {f"{field}.{name}": default_text(value) for name, value in default}
        elif name := shown.get(field, field):
            found[name] = default_text(default)
    sizes = {f"`{size}`": f"`{size >> 20}MiB`" for size in (1 << 20, 16 << 20, 64 << 20)}
    found = {name: sizes.get(text, text) for name, text in found.items()}
    return found | {"grace": found["grace"].replace("30", "30s")}


def test_settings_page_has_every_setting_with_its_default() -> None:
    server = {row[0].strip("`"): row[2] for row in table_rows("settings.md", 4)}
    tables = {row[0].strip("`"): row[1] for row in table_rows("settings.md", 3)}
    assert server | tables == all_settings()


def test_settings_page_has_every_flag_of_serve() -> None:
    flags = {flag for row in table_rows("settings.md", 4) for flag in re.findall(r"`(--[a-z-]+)`", row[1])}
    app: Any = get_command(build_app())
    options = {opt for one in app.commands["serve"].params for opt in (*one.opts, *one.secondary_opts)}
    assert flags == options


def command_paths(group: Any, before: str = "runner") -> set[str]:
    found = set()
    for name, command in group.commands.items():
        path = f"{before} {name}"
        nested = getattr(command, "commands", None)
        found |= {path} if nested is None or command.invoke_without_command else set()
        found |= command_paths(command, path) if nested else set()
    return found


def test_command_line_page_has_every_command() -> None:
    described = {
        " ".join(re.findall(r"^`runner ((?:[a-z]+ ?)+)", row[0])[0].split())
        for row in table_rows("cli.md", 2)
        if row[0].startswith("`runner ")
    }
    assert {f"runner {words}" for words in described} == command_paths(get_command(build_app()))


def test_options_that_the_command_line_page_names_exist() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (ROOT / "docs" / "cli.md").read_text()))

    def options(command: Any) -> set[str]:
        own = {opt for one in command.params for opt in one.opts}
        return own.union(*(options(nested) for nested in getattr(command, "commands", {}).values()))

    assert named - options(get_command(build_app())) == {"--help"}


def test_http_page_has_every_route() -> None:
    front = SimpleNamespace(config=SimpleNamespace(version="", token_sha256=b""))
    described = {
        (method, path)
        for row in table_rows_of_routes()
        for method, cell in re.findall(r"([A-Z]+) ((?:`/[^`]*`(?:, )?)+)", row)
        for path in re.findall(r"`([^`]*)`", cell)
    }
    assert described == {(route.method, route.path) for route in build_routes(front, None, None)}  # type: ignore[arg-type]


def table_rows_of_routes() -> list[str]:
    text = (ROOT / "docs" / "http.md").read_text().partition("## Routes")[2].partition("\n## ")[0]
    return [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]


def test_handlers_page_has_every_option_and_member_of_the_context() -> None:
    text = (ROOT / "docs" / "handlers.md").read_text()
    options = set(inspect.signature(handler).parameters) - {"name", "others"}
    table = text.partition("| option | default |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.M)))) == options
    members = set(re.findall(r"`ctx\.(\w+)", text.partition("## The context")[2].partition("\n\n`load`")[0]))
    assert members == {name for name in dir(Context) if not name.startswith("_")}


def test_jobs_page_has_every_reason_and_error_code() -> None:
    text = (ROOT / "docs" / "jobs.md").read_text()
    states = text.partition("| state | reason |")[2].partition("\n\n")[0]
    reasons = {row.split(" | ")[1].strip("` ") for row in states.splitlines() if row.startswith("| ")}
    codes = text.partition("| code | what happened |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]*) \|", codes, re.M))))
    assert named == set(get_args(ErrorCode))
    assert reasons - {"---", "null", "the error code"} == set(REASONS) - named | {"cancelled"}


def test_http_page_names_only_error_codes_that_exist() -> None:
    errors = (ROOT / "docs" / "http.md").read_text().partition("| status | codes |")[2].partition("\n\n")[0]
    code = "".join((ROOT / file).read_text() for file in ("runner/errors.py", "api/http/problems.py"))
    named = re.findall(r"`([a-z]+_[a-z_]+|unavailable|unauthorized|unsatisfiable)`", errors)
    assert len(named) >= 20
    assert [one for one in named if f'"{one}"' not in code] == []


def test_glossary_names_only_code_that_exists() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    cells = [
        line.strip("| ").split(" | ")[3] for line in lines if line.startswith("| ") and "| --- |" not in line
    ]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    paths = {name for name in named if "/" in name}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    files = [file for folder in ("runner", "gpu", "api", "tests") for file in (ROOT / folder).rglob("*.py")]
    words = set(re.findall(r"\w+", " ".join(file.read_text() for file in files)))
    assert [name for name in sorted(named - paths) if not set(re.findall(r"\w+", name)) <= words] == []

"""Pure: who may import whom, who may own which library, and how large a file and a function may grow."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("gpu", "runner", "api")
SOURCES = (*PRODUCT, "benchmarks", "examples")

#: Folder -> the folders of ours that it may name. Everything that is not here is a back arrow.
ARROWS = {
    "gpu": {"gpu"},
    "runner": {"runner", "gpu"},
    "api": {"api", "runner", "gpu"},
}
#: The parts of `runner` that know of devices. No other may, or user code would get `gpu` on its path.
KNOWS_DEVICES = ("runner/coordinator/", "runner/worker/", "runner/probe/__main__.py")
#: Library -> the files that own it; everybody else speaks to those.
OWNERS = {
    "zmq": {"runner/protocol/zmq_router.py", "runner/protocol/zmq_dealer.py"},
    "apsw": {"runner/stores/sqlite/sqlite_connection.py"},
    "pynvml": {"gpu/devices/discovery.py"},
}
#: What turns data into code. `multiprocessing` and `concurrent.futures.process` unpickle what peers send.
UNPICKLES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "multiprocessing", "code", "codeop"}
RUNS_DATA = {"eval", "exec", "compile", "__import__"}
IMPURE = {
    "time",
    "random",
    "secrets",
    "os",
    "socket",
    "select",
    "asyncio",
    "subprocess",
    "threading",
    "fcntl",
}
#: What an executor must not load before user code asks for it: each costs every cold start.
HEAVY = {"asyncio", "zmq", "pydantic", "httpx2", "typer", "fastapi", "uvicorn", "apsw", "gpu", "api"}
FUNCTION_LINES = 60


@dataclass(frozen=True)
class Source:
    """One file of ours: its module name and what it imports, at load time and at all."""

    path: str
    module: str
    tree: ast.Module
    lines: int
    imports: set[str] = field(default_factory=set)
    loads: set[str] = field(default_factory=set)

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""


def test_every_folder_is_looked_at() -> None:
    assert {source.path.split("/")[0] for source in sources()} == set(SOURCES)
    assert len(product()) > 100


@pytest.mark.parametrize("folder", PRODUCT)
def test_imports_run_one_way(folder: str) -> None:
    back = [
        f"{source.path} imports {name}"
        for source in product()
        if source.path.startswith(f"{folder}/")
        for name in source.imports
        if top(name) in {*PRODUCT, "tests", "benchmarks", "examples"} - ARROWS[folder]
    ]
    assert back == []


def test_only_those_who_plan_watch_and_probe_know_devices() -> None:
    assert [
        f"{source.path} imports {name}"
        for source in product()
        if source.path.startswith("runner/") and not source.path.startswith(KNOWS_DEVICES)
        for name in source.imports
        if top(name) == "gpu"
    ] == []


def test_no_module_needs_itself_to_load() -> None:
    names = {source.module for source in product()}
    graph = {source.module: source.loads & names - {source.module} for source in product()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_cycle_would_be_seen() -> None:
    known = {"runner.a", "runner.b"}
    a = loads_of(ast.parse("from runner import b\n"), known)
    b = loads_of(ast.parse("if 1:\n    import runner.a\n"), known)
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"runner.a": a, "runner.b": b}).prepare()


def test_imports_for_types_and_inside_functions_load_nothing() -> None:
    text = (
        "if TYPE_CHECKING:\n    import runner.b\nelse:\n    import runner.c\ndef f():\n    import runner.d\n"
    )
    known = {"runner.b", "runner.c", "runner.d"}
    assert loads_of(ast.parse(text), known) & known == {"runner.c"}


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_its_owners(library: str) -> None:
    users = {s.path for s in product() if any(top(name) == library for name in s.imports)}
    assert users == OWNERS[library]


def test_data_never_becomes_code() -> None:
    imports = [f"{s.path} imports {name}" for s in product() for name in s.imports if top(name) in UNPICKLES]
    calls = [
        f"{s.path}:{node.lineno} calls {node.func.id}"
        for s in product()
        for node in ast.walk(s.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS_DATA
    ]
    assert imports + calls == []


def test_every_module_says_whether_it_is_pure() -> None:
    assert [s.path for s in sources() if not s.docstring.startswith(("Pure: ", "Effect: "))] == []


def test_what_says_that_it_is_pure_is() -> None:
    assert [
        f"{s.path} imports {name}"
        for s in sources()
        if s.docstring.startswith("Pure: ")
        for name in sorted(s.imports)
        if top(name) in IMPURE
    ] == []


def test_no_function_does_two_things() -> None:
    found = [
        f"{s.path}:{node.lineno} {node.name}: {length} lines"
        for s in sources()
        for node in ast.walk(s.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert found == []


@pytest.mark.parametrize(
    "module", ["runner", "runner.client", "runner.executor", "runner.discovery.describe"]
)
def test_user_facing_imports_load_neither_gpu_nor_api(module: str) -> None:
    assert loaded_by(module) & {"gpu", "api"} == set()


def test_an_executor_starts_without_anything_heavy() -> None:
    # `runner.executor` imports most of its modules late: all that stand in its folder are tried as well.
    inside = [s.module for s in product() if s.path.startswith("runner/execution/")]
    assert "runner.executor.bootstrap" in inside
    assert loaded_by("runner.executor", "runner.executor.context", *inside) & HEAVY == set()


def test_what_is_loaded_is_seen() -> None:
    assert {"asyncio", "json"} <= loaded_by("asyncio", "json")


def loaded_by(*modules: str) -> set[str]:
    """The top-level names in `sys.modules` of a fresh interpreter after these imports."""
    code = f"import sys, {', '.join(modules)}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file of the product, the benchmark and the examples."""
    paths = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
    known = {module_of(str(path.relative_to(ROOT))) for path in paths}
    return tuple(
        parsed(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"), known) for path in paths
    )


def product() -> tuple[Source, ...]:
    return tuple(source for source in sources() if source.path.startswith(tuple(f"{f}/" for f in PRODUCT)))


def parsed(path: str, text: str, known: set[str] | None = None) -> Source:
    tree = ast.parse(text, path)
    loads = loads_of(tree, known or set())
    every = {name for node in ast.walk(tree) for name in named_by(node)}
    return Source(path, module_of(path), tree, len(text.splitlines()), every, loads)


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def top(module: str) -> str:
    return module.split(".")[0]


def loads_of(tree: ast.Module, known: set[str]) -> set[str]:
    """The modules among `known` that this one loads; a package's own file counts only when it is named."""
    names: set[str] = set()
    for node in executed_at_load(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` loads the module, `from module import name` the module itself.
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (full & known) | ({node.module} if full - known else set())
        else:
            names |= named_by(node)
    return names & known


def executed_at_load(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from executed_at_load(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for block in ("body", "orelse", "finalbody"):
                yield from executed_at_load(getattr(node, block, []))
            for handler in getattr(node, "handlers", []):
                yield from executed_at_load(handler.body)


def named_by(node: ast.AST) -> set[str]:
    """The modules that an import statement names; nothing for other nodes."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module}
    return set()

"""Pure: which module may import which, which file owns a library, how large a class and a function may be."""

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
#: The parts of `runner` that may import `gpu`. Any other part would put `gpu` on the path of user code.
KNOWS_DEVICES = ("runner/coordinator/", "runner/worker/", "runner/probe/")
#: Library -> the files that own it; all other code calls these files.
OWNERS = {
    "zmq": {f"runner/protocol/zmq_{name}.py" for name in ("router", "dealer", "socket")},
    "apsw": {"runner/stores/sqlite/sqlite_connection.py"},
    "pynvml": {"gpu/devices/discovery.py"},
}
#: The public facades: they import upwards so that users need to know one name only.
FACADES = {"runner", "runner.testing"}
#: Level of each part of the coordinator, from the ground up: a part imports only parts of lower levels.
LEVELS = {
    "runtime": 0,
    "jobs": 1,
    "storage": 2,
    "queue": 3,
    "processes": 3,
    "lifecycle": 4,
    "reload": 4,
    "dispatch": 5,
    "devices": 6,
    "worker_events": 7,
    "observability": 7,
    "front": 8,
    "components": 9,
    "coordinator": 10,
    "main": 11,
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
#: The classes of a published schema are named as its readers know them.
PUBLISHED = {"api/openapi/schema.py", "runner/client/models.py"}
FUNCTION_LINES = 60
CLASS_LINES = 250
CLASS_METHODS = 20
#: Classes that may be larger, each with its reason.
LARGE_CLASSES = {
    "AsyncClient": "one method for each call of the HTTP API: the whole of it is the class",
    "Client": "the same calls without asyncio",
}


@dataclass(frozen=True)
class Source:
    """One file of ours: its module name and what it imports, at load time and at all."""

    path: str
    module: str
    tree: ast.Module
    #: The modules that an import statement names.
    imports: set[str] = field(default_factory=set)
    #: Modules of ours that are imported at load time.
    loads: set[str] = field(default_factory=set)
    #: Modules of ours that are imported anywhere, for types and inside functions too.
    names: set[str] = field(default_factory=set)

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


def test_no_module_imports_itself_through_others() -> None:
    # Imports for types and inside functions count: such a cycle loads, but its files are still one piece.
    names = {source.module for source in product()} - FACADES
    graph = {s.module: s.names & names - {s.module} for s in product() if s.module not in FACADES}
    assert cycle_in(graph) == []


def test_no_package_imports_itself_through_others() -> None:
    graph: dict[str, set[str]] = {}
    for source in product():
        if source.module not in FACADES:
            targets = {package_of(name) for name in source.names - FACADES}
            graph.setdefault(package_of(source.module), set()).update(targets - {package_of(source.module)})
    assert cycle_in(graph) == []


def test_the_coordinator_imports_downwards() -> None:
    upwards = [
        f"{source.path} imports {name}"
        for source in product()
        if (level := level_of(source.module)) is not None
        for name in sorted(source.names)
        if (other := level_of(name)) is not None
        and part_of(name) != part_of(source.module)
        and other >= level
    ]
    assert upwards == []


def test_every_part_of_the_coordinator_has_a_level() -> None:
    parts = {part_of(s.module) for s in product() if s.module.startswith("runner.coordinator.")}
    assert parts == set(LEVELS)


def test_every_package_has_an_init_file() -> None:
    folders = {Path(source.path).parent for source in product()}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


def test_private_names_stay_in_their_package() -> None:
    assert [
        f"{source.path} imports {node.module}.{alias.name}"
        for source in product()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module and top(node.module) in PRODUCT
        for alias in node.names
        if alias.name.startswith("_") and package_of(node.module) != package_of(source.module)
    ] == []


def test_no_module_needs_itself_to_load() -> None:
    names = {source.module for source in product()}
    graph = {source.module: source.loads & names - {source.module} for source in product()}
    assert cycle_in(graph) == []


def test_a_cycle_would_be_seen() -> None:
    known = {"runner.a", "runner.b"}
    a = loads_of(ast.parse("from runner import b\n"), known)
    b = loads_of(ast.parse("if 1:\n    import runner.a\n"), known)
    assert set(cycle_in({"runner.a": a, "runner.b": b})) == {"runner.a", "runner.b"}


def test_an_import_for_types_counts_in_a_cycle() -> None:
    known = {"runner.a", "runner.b"}
    a = parsed("runner/a.py", "if TYPE_CHECKING:\n    from runner.b import B\n", known)
    b = parsed("runner/b.py", "def f():\n    from runner import a\n", known)
    assert set(cycle_in({a.module: a.names, b.module: b.names})) == known


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


def test_no_class_name_stands_for_two_things() -> None:
    homes: dict[str, list[str]] = {}
    for source in product():
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and source.path not in PUBLISHED:
                homes.setdefault(node.name, []).append(source.path)
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_no_class_is_too_large() -> None:
    assert [
        f"{path}:{node.lineno} {node.name}: {length_of(node)} lines, {len(public_methods(node))} methods"
        for path, node in large_classes()
        if node.name not in LARGE_CLASSES
    ] == []


def test_every_exception_to_the_size_of_classes_is_needed() -> None:
    assert {node.name for _, node in large_classes()} >= set(LARGE_CLASSES)


def test_no_function_is_too_long() -> None:
    found = [
        f"{s.path}:{node.lineno} {node.name}: {length_of(node)} lines"
        for s in sources()
        for node in ast.walk(s.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length_of(node) > FUNCTION_LINES
    ]
    assert found == []


@pytest.mark.parametrize(
    "module", ["runner", "runner.client", "runner.executor.__main__", "runner.discovery.describe"]
)
def test_user_facing_imports_load_neither_gpu_nor_api(module: str) -> None:
    assert loaded_by(module) & {"gpu", "api"} == set()


def test_an_executor_starts_without_anything_heavy() -> None:
    # `runner.executor` imports most of its modules late: all modules of its package are tried as well.
    inside = [s.module for s in product() if s.path.startswith("runner/executor/")]
    assert "runner.executor.bootstrap" in inside
    assert loaded_by(*inside) & HEAVY == set()


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
    known = known or set()
    loads = loads_of(tree, known)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for node in imports for name in modules_of(node, known)}
    every = {name for node in imports for name in named_by(node)}
    return Source(path, module_of(path), tree, every, loads, names)


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of one cycle in order, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


@cache
def packages() -> frozenset[str]:
    return frozenset(module_of(str(Path(source.path).parent)) for source in product())


def package_of(module: str) -> str:
    """The package that a module of ours is in; a package is in itself."""
    return module if module in packages() else module.rpartition(".")[0]


def part_of(module: str) -> str | None:
    """The package or module right under `runner.coordinator`."""
    words = module.split(".")
    return words[2] if words[:2] == ["runner", "coordinator"] and len(words) > 2 else None


def level_of(module: str) -> int | None:
    return LEVELS.get(part_of(module) or "")


def large_classes() -> list[tuple[str, ast.ClassDef]]:
    return [
        (s.path, node)
        for s in sources()
        for node in ast.walk(s.tree)
        if isinstance(node, ast.ClassDef)
        and (length_of(node) > CLASS_LINES or len(public_methods(node)) > CLASS_METHODS)
    ]


def public_methods(node: ast.ClassDef) -> list[str]:
    return [
        child.name
        for child in node.body
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_")
    ]


def length_of(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def top(module: str) -> str:
    return module.split(".")[0]


def loads_of(tree: ast.Module, known: set[str]) -> set[str]:
    """The modules among `known` that this one loads; a package's own file counts only when it is named."""
    return {name for node in executed_at_load(tree.body) for name in modules_of(node, known)}


def modules_of(node: ast.AST, known: set[str]) -> set[str]:
    """The modules among `known` that an import statement imports; nothing for other nodes."""
    if isinstance(node, ast.ImportFrom) and node.module:
        # `from package import module` imports the module, `from module import name` the module itself.
        full = {f"{node.module}.{alias.name}" for alias in node.names}
        return (full & known) | ({node.module} & known if full - known else set())
    return named_by(node) & known


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

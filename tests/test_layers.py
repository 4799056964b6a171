"""Effect: walks every import of the tree: one way down, no circles, each library behind its one door."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: What each layer may import of ours.
BELOW = {"gpu": {"gpu"}, "runner": {"runner", "gpu"}, "api": {"api", "runner"}}
#: The only parts of runner that know devices.
KNOW_DEVICES = ("runner.coordinator", "runner.worker", "runner.probe")
#: Library -> the modules that own it.
DOORS = {
    "zmq": {"runner.coordinator.transport", "runner.worker.transport"},
    "apsw": {"runner.stores.sqlite"},
    "pynvml": {"gpu.probe"},
    "sqlite3": set(),
    "pickle": set(),
    "cPickle": set(),
    "cloudpickle": set(),
    "dill": set(),
    "marshal": set(),
    "shelve": set(),
    "torch": set(),
}
#: Clock, randomness and the outside world: not for a module that calls itself pure. (`signal` and `http`
#: are looked at for their names.)
IMPURE = {
    "asyncio", "fcntl", "multiprocessing", "os", "psutil", "queue", "random", "secrets", "select",
    "selectors", "shutil", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
    "uvloop", "httpx2", "uvicorn",
}  # fmt: skip


class Import(NamedTuple):
    importer: str
    #: A module of ours, or the top-level name of somebody else's.
    target: str
    #: Runs when the importer is loaded: not inside a function, nor only for the type checker.
    at_load: bool


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for layer in BELOW
        for path in sorted((ROOT / layer).rglob("*.py"))
    }


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text("utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for module in modules() for found in _of(module, tree(module).body, at_load=True))


def _of(module: str, body: list[ast.stmt], *, at_load: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(module, _known(alias.name), at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            # `from package import name` may name a module of the package.
            for alias in node.names:
                yield Import(module, _known(f"{node.module}.{alias.name}"), at_load)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _of(module, node.body, at_load=False)
            yield from _of(module, node.orelse, at_load=at_load)
        else:
            runs_now = at_load and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for _, value in ast.iter_fields(node):
                if isinstance(value, list):
                    inner = [item.body if isinstance(item, _BLOCKS) else [item] for item in value]
                    flat = [part for block in inner for part in block if isinstance(part, ast.stmt)]
                    yield from _of(module, flat, at_load=runs_now)


_BLOCKS = (ast.ExceptHandler, ast.match_case)


def _known(name: str) -> str:
    """The longest part of a dotted name that is a module of ours; else its first word."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if (candidate := ".".join(parts[:length])) in modules():
            return candidate
    return parts[0]


def test_the_walk_sees_imports_wherever_they_stand() -> None:
    body = ast.parse("try:\n import zmq\nexcept OSError:\n from os import path\ndef f():\n  import time").body
    assert [(found.target, found.at_load) for found in _of("x", body, at_load=True)] == [
        ("zmq", True),
        ("os", True),
        ("time", False),
    ]


def test_imports_go_down_only() -> None:
    wrong = [
        found
        for found in imports()
        if (target := found.target.split(".")[0]) in BELOW
        and target not in BELOW[found.importer.split(".")[0]]
    ]
    assert not wrong


def test_only_the_parts_that_plan_and_pin_know_devices() -> None:
    wrong = [
        found
        for found in imports()
        if found.importer.startswith("runner")
        and found.target.split(".")[0] == "gpu"
        and not found.importer.startswith(KNOW_DEVICES)
    ]
    assert not wrong


def test_no_module_waits_for_itself_while_it_loads() -> None:
    # A module needs the packages around what it imports loaded too, but not those it lies in itself.
    needs: dict[str, set[str]] = {module: set() for module in modules()}
    for found in imports():
        if found.at_load and found.target in needs and found.target != found.importer:
            needs[found.importer].add(found.target)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    users = {found.importer for found in imports() if found.target == library}
    assert users <= DOORS[library]


def test_nothing_evaluates_text() -> None:
    wrong = [
        f"{module}:{node.lineno} {node.func.id}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}
    ]
    assert not wrong


def test_every_module_says_whether_it_is_pure() -> None:
    silent = [
        module for module in modules() if not (ast.get_docstring(tree(module)) or "").startswith(_KINDS)
    ]
    assert not silent


_KINDS = ("Pure: ", "Effect: ")


def test_pure_modules_touch_neither_clock_nor_world() -> None:
    pure = {module for module in modules() if (ast.get_docstring(tree(module)) or "").startswith("Pure: ")}
    assert not [found for found in imports() if found.importer in pure and found.target in IMPURE]


def loaded_after(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after this statement."""
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True, timeout=30)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", ["runner", "runner.client", "runner.executor"])
def test_what_users_import_leaves_gpu_and_api_alone(name: str) -> None:
    assert not loaded_after(f"import {name}") & {"gpu", "api"}


@pytest.mark.parametrize("statement", ["import runner.executor", "from runner import handler, Context"])
def test_an_executor_starts_light(statement: str) -> None:
    heavy = {"asyncio", "fastapi", "httpx2", "pydantic", "starlette", "torch", "uvicorn", "zmq"}
    assert not loaded_after(statement) & heavy


def test_importing_runner_costs_nothing() -> None:
    ours = {name for name in loaded_after("import runner") if name.startswith("runner")}
    assert ours == {"runner"}

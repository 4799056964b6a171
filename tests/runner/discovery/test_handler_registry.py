from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.discovery.handler_registry import HandlerRegistry
from runner.errors import RefusedStart
from runner.handlers.spec import HandlerSpec

ROOT = str(Path(__file__).resolve().parents[3])
HEAD = "from runner import Context, handler\n"
ECHO = HEAD + "@handler('echo')\ndef echo(data): return data\n"


def handler_registry(
    cwd: Path, *requests: str, cache: Mapping[str, bytes] | None = None, **more: Any
) -> HandlerRegistry:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT}
    more.setdefault("on_change", lambda: None)
    return HandlerRegistry(requests, entry_points=False, env=env, cwd=cwd, cache=cache or {}, **more)


def described(cwd: Path, *requests: str, **more: Any) -> dict[str, HandlerSpec]:
    found = handler_registry(cwd, *requests, **more)
    asyncio.run(found.describe_all())
    assert not found.describing
    return dict(found.specs)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def test_a_handler_is_described_with_its_options_and_schemas(tmp_path: Path) -> None:
    code = """
from pydantic import BaseModel, Field
class Prompt(BaseModel):
    text: str
    steps: int = Field(20, ge=1, le=200)
@handler("paint", vram="6GiB", timeout="5m", retries=2)
class Paint:
    '''Paints.'''
    def run(self, data: Prompt, ctx: Context) -> dict: ...
"""
    spec = described(write(tmp_path, paint=HEAD + code), "paint.py")["paint"]
    assert (spec.state, spec.kind, spec.description) == ("ok", "function", "Paints.")
    assert (spec.options.gpus, spec.options.vram_bytes, spec.options.timeout_s) == (1, 6 << 30, 300.0)
    schema = json.loads(spec.input_schema)
    assert schema["required"] == ["text"]
    assert schema["properties"]["steps"]["maximum"] == 200
    assert json.loads(spec.output_schema) == {"type": "object"}
    assert (spec.source.target, spec.source.attr) == (str(tmp_path / "paint.py"), "Paint")
    assert len(spec.version) == 12


@pytest.mark.parametrize(
    ("function", "kind", "schema"),
    [
        ("def f(): return 1", "function", "true"),
        ("def f(data): return 1", "function", "true"),
        ("def f(data: dict): return 1", "function", '{"type":"object"}'),
        ("async def f(data: str): return 1", "coroutine", '{"type":"string"}'),
        ("def f(data: 'list'): yield 1", "generator", '{"type":"array"}'),
        ("async def f(data: None): yield 1", "async_generator", '{"type":"null"}'),
        ("def f(data: list[int]): ...", "function", '{"items":{"type":"integer"},"type":"array"}'),
        ("def f(data, ctx: 'OnlyForTypeCheckers'): ...", "function", "true"),
    ],
)
def test_kinds_and_plain_annotations(tmp_path: Path, function: str, kind: str, schema: str) -> None:
    spec = described(write(tmp_path, x=f"{HEAD}@handler('f')\n{function}"), "x.py")["f"]
    assert (spec.state, spec.kind, spec.input_schema.decode()) == ("ok", kind, schema)


@pytest.mark.parametrize(
    ("given", "schema", "output"),
    [
        ("d: list[int]) -> list[str | Exception]:", '{"type":"integer"}', '{"type":"string"}'),
        ("d: list) -> list:", "true", "true"),
        ("d):", "true", "true"),
    ],
)
def test_the_schemas_of_a_batch_are_those_of_an_item(
    tmp_path: Path, given: str, schema: str, output: str
) -> None:
    code = f"{HEAD}@handler('f', batch={{'max': 4}})\ndef f({given} ..."
    spec = described(write(tmp_path, x=code), "x.py")["f"]
    assert (spec.state, spec.input_schema.decode()) == ("ok", schema), spec.error
    assert spec.output_schema.decode() == output
    assert spec.options.batch is not None and spec.options.batch.max == 4


def test_the_output_schema_follows_the_return_annotation(tmp_path: Path) -> None:
    code = """
import numpy as np
from collections.abc import Iterator
@handler("chunks")
def chunks(d) -> Iterator[str]: yield "a"
@handler("file")
def file(d) -> dict[str, bytes]: ...
@handler("array")
def array(d) -> np.ndarray: ...
@handler("unknown")
def unknown(d) -> "OnlyForTypeCheckers": ...
"""
    specs = described(write(tmp_path, x=HEAD + code), "x.py")
    assert json.loads(specs["chunks"].output_schema) == {"type": "array", "items": {"type": "string"}}
    assert "$file" in json.loads(specs["file"].output_schema)["additionalProperties"]["properties"]
    assert specs["array"].state == "broken"
    assert "array.tolist()" in specs["array"].error
    assert (specs["unknown"].state, specs["unknown"].output_schema) == ("ok", b"true")


@pytest.mark.parametrize(
    ("given", "said"), [("d: dict", "write list[...]"), ("", "needs a parameter for the list of inputs")]
)
def test_a_batch_of_something_else_is_broken(tmp_path: Path, given: str, said: str) -> None:
    code = f"{HEAD}@handler('f', batch={{}})\ndef f({given}): ..."
    spec = described(write(tmp_path, x=code), "x.py")["f"]
    assert spec.state == "broken" and said in spec.error


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1/0", "ZeroDivisionError"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.closerange(3, 1000)", "x.py"),
        ("x = 1", "has no handlers"),
        ("def f(:", "SyntaxError"),
        (
            "from runner import handler\n@handler('f', cache=2)\ndef f(d): ...",
            "option 'cache' is not supported in this version",
        ),
        ("print('x' * 10_000_000); raise ValueError('after noise')", "after noise"),
    ],
)
def test_a_source_that_is_broken_is_listed_under_its_name_and_stops_no_other(
    tmp_path: Path, code: str, said: str
) -> None:
    specs = described(write(tmp_path, x=code, good=ECHO), "x.py", "good.py")
    assert specs["echo"].state == "ok"
    assert specs["x"].state == "broken"
    assert said in specs["x"].error


def test_a_source_that_never_ends_is_given_up(tmp_path: Path) -> None:
    folder = write(tmp_path, x="while True: pass", good=ECHO)
    specs = described(folder, "x.py", "good.py", describe_s=1.0)
    assert specs["echo"].state == "ok"
    assert "timed out after 1 s" in specs["x"].error


def test_an_import_that_leaves_threads_and_children_behind_is_ended(tmp_path: Path) -> None:
    code = ECHO + (
        "import subprocess, threading, time, pathlib\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "pathlib.Path(__file__).with_name('pid').write_text(str(child.pid))\n"
    )
    begin = time.monotonic()
    assert described(write(tmp_path, x=code), "x.py")["echo"].state == "ok"
    assert time.monotonic() - begin < 10
    child = int((tmp_path / "pid").read_text())
    while is_alive(child):
        assert time.monotonic() - begin < 10


def test_one_handler_with_an_annotation_that_has_no_schema_leaves_the_others(tmp_path: Path) -> None:
    code = ECHO + "@handler('bad')\ndef bad(data: Context): ...\n@handler('gone')\ndef g(data: 'Gone'): ...\n"
    specs = described(write(tmp_path, x=code), "x.py")
    assert {name: spec.state for name, spec in specs.items()} == {
        "echo": "ok",
        "bad": "broken",
        "gone": "broken",
    }
    assert "has no JSON Schema" in specs["bad"].error
    assert "can't be resolved" in specs["gone"].error


def test_two_handlers_of_one_name_stop_the_start_naming_both(tmp_path: Path) -> None:
    with pytest.raises(RefusedStart, match=r"'echo'.*(a|b)\.py.*(a|b)\.py"):
        described(write(tmp_path, a=ECHO, b=ECHO), "a.py", "b.py")


def test_two_of_one_name_in_one_file_stop_the_start_too(tmp_path: Path) -> None:
    with pytest.raises(RefusedStart, match="'echo'"):
        described(write(tmp_path, a=ECHO + "@handler('echo')\ndef other(d): ...\n"), "a.py")


def test_an_imported_handler_belongs_to_its_own_file(tmp_path: Path) -> None:
    folder = write(tmp_path, a=ECHO, b=HEAD + "from a import echo\n@handler('b')\ndef b(d): return echo(d)\n")
    specs = described(folder, str(folder))
    assert {name: spec.source.target for name, spec in specs.items()} == {
        "echo": str(tmp_path / "a.py"),
        "b": str(tmp_path / "b.py"),
    }


def test_a_helper_in_a_folder_is_no_mistake(tmp_path: Path) -> None:
    assert list(described(write(tmp_path, a=ECHO, helper="x = 1"), str(tmp_path))) == ["echo"]


def test_one_object_of_a_source_may_be_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path, things=ECHO + "@handler('two-words')\ndef other(d): ...\n")
    assert list(described(folder, "things:echo")) == ["echo"]
    assert list(described(folder, "things.py:other")) == ["two-words"]
    assert described(folder, "things:nothing")["things"].state == "broken"


def test_a_restart_imports_nothing(tmp_path: Path) -> None:
    code = ECHO + "import pathlib\nwith open(pathlib.Path(__file__).with_name('n'), 'a') as f: f.write('x')\n"
    write(tmp_path, a=code)
    first = handler_registry(tmp_path, "a.py")
    asyncio.run(first.describe_all())
    again = handler_registry(tmp_path, "a.py", cache=first.cache_entries)
    asyncio.run(again.describe_all())
    assert again.specs == first.specs
    assert again.cache_entries == {}
    assert (tmp_path / "n").read_text() == "x"


def test_a_changed_file_is_described_anew_and_a_broken_one_each_time(tmp_path: Path) -> None:
    first = handler_registry(write(tmp_path, a=ECHO, b="1/0"), "a.py", "b.py")
    asyncio.run(first.describe_all())
    assert len(first.cache_entries) == 1
    write(tmp_path, a=ECHO.replace("'echo'", "'changed'"), b=ECHO)
    assert set(described(tmp_path, "a.py", "b.py", cache=first.cache_entries)) == {"changed", "echo"}


def test_a_damaged_memory_is_as_good_as_none(tmp_path: Path) -> None:
    first = handler_registry(write(tmp_path, a=ECHO), "a.py")
    asyncio.run(first.describe_all())
    damaged = dict.fromkeys(first.cache_entries, b"\xc1")
    assert described(tmp_path, "a.py", cache=damaged)["echo"].state == "ok"


def test_who_waits_for_a_handler_gets_it_or_learns_that_there_is_none(tmp_path: Path) -> None:
    async def scenario() -> tuple[HandlerSpec | None, HandlerSpec | None]:
        found = handler_registry(write(tmp_path, a=ECHO), "a.py")
        waiting = [asyncio.create_task(found.wait_for_handler(name)) for name in ("echo", "nobody")]
        await found.describe_all()
        return await waiting[0], await waiting[1]

    echo, nobody = asyncio.run(scenario())
    assert echo is not None
    assert echo.name == "echo"
    assert nobody is None


def test_a_source_that_was_described_before_is_expected_to_have_the_same_names(tmp_path: Path) -> None:
    first = handler_registry(write(tmp_path, a=ECHO), "a.py")
    asyncio.run(first.describe_all())
    write(tmp_path, a=ECHO + "# changed\n")
    again = handler_registry(tmp_path, "a.py", cache=first.cache_entries)
    again.load_cache()
    assert again.is_expected("echo") and not again.is_expected("nobody")
    assert len(again.sources_being_described) == 1
    # A source that nobody has described may define any name.
    write(tmp_path, b=HEAD)
    new = handler_registry(tmp_path, "a.py", "b.py", cache=first.cache_entries)
    new.load_cache()
    assert new.is_expected("nobody") and len(new.sources_being_described) == 2
    asyncio.run(new.describe_all())
    assert not new.is_expected("nobody") and new.sources_being_described == []


def test_changes_are_told_as_they_come(tmp_path: Path) -> None:
    seen: list[tuple[bool, list[str]]] = []
    found: HandlerRegistry = handler_registry(
        write(tmp_path, a=ECHO, b="1/0"),
        "a.py",
        "b.py",
        on_change=lambda: seen.append((found.describing, sorted(found.specs))),
    )
    asyncio.run(found.describe_all())
    assert seen[0] == (True, [])
    assert seen[-1] == (False, ["b", "echo"])


def test_describing_hides_the_gpus_and_sees_only_the_given_environment(tmp_path: Path) -> None:
    code = HEAD + "import os\n@handler(os.environ['CUDA_VISIBLE_DEVICES'] + 'none')\ndef f(d): ...\n"
    assert list(described(write(tmp_path, a=code), "a.py")) == ["none"]


def test_descriptors_and_children_are_given_back(tmp_path: Path) -> None:
    write(tmp_path, a=ECHO, b="1/0")
    described(tmp_path, "a.py", "b.py")
    before = sorted(os.listdir("/proc/self/fd"))
    described(tmp_path, "a.py", "b.py")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_preload_that_contradicts_the_models_breaks_the_handler_with_the_reason(tmp_path: Path) -> None:
    code = """
@handler("which", model_by="m", preload=True)
def which(data): ...
@handler("what", preload=["a"])
def what(data): ...
@handler("fine", model_by="m", preload=["a"])
def fine(data): ...
"""
    specs = described(write(tmp_path, three=HEAD + code), "three.py")
    assert {name: spec.state for name, spec in specs.items()} == {
        "which": "broken",
        "what": "broken",
        "fine": "ok",
    }
    assert 'preload=["a", "b"]' in specs["which"].error and "preload=True" in specs["what"].error


LEAVES_A_CHILD = """
import os, subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open("pids", "a") as pids:
    pids.write(f"{child.pid}\\n")
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "import time; time.sleep(600)"])
def test_what_an_import_starts_in_a_session_of_its_own_ends_with_the_description(
    tmp_path: Path, end: str
) -> None:
    async def scenario() -> None:
        cwd = write(tmp_path, a=ECHO + LEAVES_A_CHILD + end)
        found = handler_registry(cwd, "a.py", describe_s=2.0)
        await found.describe_all()
        assert (found.specs["echo" if not end else "a"].state == "ok") == (not end)
        (cwd / "a.py").write_text(ECHO + "# changed\n" + LEAVES_A_CHILD + end)
        await found.reload()

    asyncio.run(scenario())
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    until = time.monotonic() + 10
    while any(map(is_alive, pids)):
        assert time.monotonic() < until, pids
        time.sleep(0.01)


def test_a_stop_in_the_middle_of_a_description_leaves_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        cwd = write(tmp_path, a=ECHO + LEAVES_A_CHILD + "import time; time.sleep(600)")
        describing = asyncio.ensure_future(handler_registry(cwd, "a.py").describe_all())
        until = time.monotonic() + 20
        while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        describing.cancel()
        await asyncio.gather(describing, return_exceptions=True)

    asyncio.run(scenario())
    (pid,) = [int(line) for line in (tmp_path / "pids").read_text().split()]
    until = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.01)

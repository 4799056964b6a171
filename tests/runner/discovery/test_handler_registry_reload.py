"""Sources of handlers are found and described anew while the server runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runner.discovery.handler_registry import HandlerRegistry
from runner.errors import RefusedStart
from tests.runner.discovery.test_handler_registry import ECHO, HEAD, handler_registry, write

COUNTED = "import pathlib\nwith open(pathlib.Path(__file__).with_suffix('.n'), 'a') as f: f.write('x')\n"


def run_scenario(found: HandlerRegistry, body: Callable[[], Awaitable[None]]) -> HandlerRegistry:
    async def whole() -> None:
        await found.describe_all()
        await body()

    asyncio.run(whole())
    return found


def states(found: HandlerRegistry) -> dict[str, str]:
    return {name: spec.state for name, spec in found.specs.items()}


def test_only_what_has_changed_is_imported_again(tmp_path: Path) -> None:
    write(tmp_path, a=ECHO + COUNTED, b=ECHO.replace("echo", "other") + COUNTED)
    found = handler_registry(tmp_path, "a.py", "b.py")
    first = dict(found.cache_entries)

    async def body() -> None:
        old = found.specs["other"]
        assert await found.reload() == set()
        write(tmp_path, a=ECHO + COUNTED + "# more")
        assert await found.reload() == {"echo"}
        assert found.specs["other"] is old

    first = found.cache_entries
    run_scenario(found, body)
    assert (tmp_path / "a.n").read_text() == "xx"
    assert (tmp_path / "b.n").read_text() == "x"
    assert len(first) == 2
    assert len(found.cache_entries) == len(found.outdated_keys) == 1
    assert found.outdated_keys < set(first)


def test_a_change_of_what_it_imports_counts(tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    write(package, __init__="", deep="WORD = 'a'")
    code = HEAD + "from {}deep import WORD\n@handler(WORD)\ndef f(d): ...\n"
    write(package, here=code.format("."))
    write(tmp_path, a=code.format("pack.").replace("WORD)", "'b' + WORD)"))
    found = handler_registry(tmp_path, "pack.here", "a.py")

    async def body() -> None:
        assert set(found.specs) == {"a", "ba"}
        write(package, deep="WORD = 'z'")
        assert await found.reload() == {"a", "ba", "z", "bz"}
        assert set(found.specs) == {"z", "bz"}

    run_scenario(found, body)
    assert found.watched_folders() == {str(tmp_path), str(package)}
    again = handler_registry(tmp_path, "pack.here", "a.py", cache=found.cache_entries)
    again.load_cache()
    assert not again.describing
    write(package, deep="WORD = 'y'")
    again = handler_registry(tmp_path, "pack.here", "a.py", cache=found.cache_entries)
    asyncio.run(again.describe_all())
    assert set(again.specs) == {"y", "by"}


def test_a_change_within_the_second_of_the_same_size_is_seen(tmp_path: Path) -> None:
    write(tmp_path, a=HEAD + "import names\n@handler(names.IT)\ndef f(d): ...\n", names="IT = 'x1'")
    os.utime(tmp_path / "names.py", (1_000_000.2, 1_000_000.2))
    found = handler_registry(tmp_path, "a.py")

    async def body() -> None:
        write(tmp_path, names="IT = 'x2'")
        os.utime(tmp_path / "names.py", (1_000_000.8, 1_000_000.8))
        await found.reload()
        assert set(found.specs) == {"x2"}

    run_scenario(found, body)


def test_files_of_a_folder_come_and_go(tmp_path: Path) -> None:
    write(tmp_path, a=ECHO)
    found = handler_registry(tmp_path, str(tmp_path))

    async def body() -> None:
        write(tmp_path, b=ECHO.replace("echo", "other"))
        assert await found.reload() == {"other"}
        (tmp_path / "a.py").unlink()
        assert await found.reload() == {"echo"}
        assert states(found) == {"other": "ok"}

    run_scenario(found, body)
    assert len(found.outdated_keys) == 1


def test_all_handlers_of_a_file_that_is_broken_are_broken_until_it_is_repaired(tmp_path: Path) -> None:
    both = ECHO + "@handler('two')\ndef two(d): ...\n"
    write(tmp_path, a=both)
    found = handler_registry(tmp_path, "a.py")

    async def body() -> None:
        write(tmp_path, a=both + "def (:\n")
        assert await found.reload() == {"echo", "two"}
        assert states(found) == {"echo": "broken", "two": "broken"}
        assert "SyntaxError" in found.specs["two"].error
        assert (found.cache_entries, found.outdated_keys) == ({}, set())
        assert await found.reload() == set()
        write(tmp_path, a=both)
        assert await found.reload() == {"echo", "two"}

    run_scenario(found, body)
    assert states(found) == {"echo": "ok", "two": "ok"}


def test_a_reload_that_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, a=ECHO, b=ECHO.replace("echo", "other"))
    found = handler_registry(tmp_path, "a.py", "b.py")

    async def body() -> None:
        before = found.specs
        write(tmp_path, b=ECHO)
        with pytest.raises(RefusedStart, match=r"two handlers are called 'echo'.*a\.py.*b\.py"):
            await found.reload()
        (tmp_path / "b.py").unlink()
        with pytest.raises(RefusedStart, match=r"there is no file .*b\.py"):
            await found.reload()
        assert found.specs is before
        write(tmp_path, b=ECHO.replace("echo", "third"))
        assert await found.reload() == {"other", "third"}

    run_scenario(found, body)

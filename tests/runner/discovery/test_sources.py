from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from runner.discovery import sources
from runner.discovery.sources import SourceRef
from runner.errors import RefusedStart


def find(cwd: Path, *requests: str, entry_points: bool = False, path: Sequence[Path] = ()) -> list[SourceRef]:
    env = {"PYTHONPATH": ":".join(map(str, path))}
    return sources.find_sources(requests, with_entry_points=entry_points, cwd=cwd, env=env)


def offer(folder: Path, name: str, value: str) -> None:
    """A distribution with an entry point, as an installer leaves it."""
    info = folder / "some_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[runner.handlers]\n{name} = {value}\n")


def test_a_file_is_found_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "paint.py").touch()
    (place,) = find(tmp_path, "paint.py")
    assert (place.kind, place.target, place.attr) == ("file", str(tmp_path / "paint.py"), None)
    assert (place.name, place.path) == ("paint", (str(tmp_path),))


def test_a_folder_gives_its_files_less_private_ones(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "_c.py", "d.txt"):
        (tmp_path / name).touch()
    assert [place.name for place in find(tmp_path, ".", str(tmp_path))] == ["a", "b"]


def test_a_bare_name_is_a_folder_unless_it_is_a_package(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "paint.py").touch()
    assert [(place.kind, place.name) for place in find(tmp_path, "some")] == [("file", "paint")]
    (tmp_path / "some" / "__init__.py").touch()
    assert [(place.kind, place.target) for place in find(tmp_path, "some")] == [("module", "some")]


def test_a_module_is_looked_for_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "paint.py").touch()
    (place,) = find(tmp_path, "pack.paint:Paint")
    assert (place.kind, place.target, place.attr) == ("module", "pack.paint", "Paint")
    assert (place.path, place.file) == ((str(tmp_path),), tmp_path / "pack" / "paint.py")


def test_finding_a_module_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "never_imported").mkdir()
    (tmp_path / "never_imported" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "never_imported" / "inner.py").write_text("raise SystemExit")
    (place,) = find(tmp_path, "never_imported.inner")
    assert place.file is not None
    assert "never_imported" not in sys.modules


def test_what_is_not_there_stops_the_start(tmp_path: Path) -> None:
    for request in ("gone.py", "some/where", "not a module", "3x"):
        with pytest.raises(RefusedStart, match="--handlers"):
            find(tmp_path, request)


def test_a_module_that_is_not_there_is_left_to_its_import(tmp_path: Path) -> None:
    (place,) = find(tmp_path, "not_there_at_all")
    assert place.file is None
    assert place.cache_key() is None


def test_the_same_thing_twice_is_one_place(tmp_path: Path) -> None:
    (tmp_path / "paint.py").touch()
    assert len(find(tmp_path, "paint.py", "./paint.py", str(tmp_path))) == 1


def test_a_key_changes_with_the_content(tmp_path: Path) -> None:
    (tmp_path / "paint.py").write_text("a = 1")
    before = find(tmp_path, "paint.py")[0].cache_key()
    assert before == find(tmp_path, "paint.py")[0].cache_key()
    (tmp_path / "paint.py").write_text("a = 2")
    assert before != find(tmp_path, "paint.py")[0].cache_key()


def test_entry_points_are_found_with_their_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, "painter", "pack_of_plugin.paint:Paint")
    monkeypatch.syspath_prepend(str(tmp_path))
    (place,) = [one for one in find(tmp_path, entry_points=True) if one.name == "painter"]
    assert (place.target, place.attr, place.path) == ("pack_of_plugin.paint", "Paint", ())
    assert place.title == "entry point painter of some-plugin"
    assert find(tmp_path) == []

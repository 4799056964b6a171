"""The marker by which a start finds the processes that an earlier server of its folder left behind."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from runner.coordinator.storage.instance_marker import load_or_create_marker
from runner.errors import RefusedStart


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def test_a_folder_keeps_its_marker_and_finds_its_own_processes(tmp_path: Path) -> None:
    made = load_or_create_marker(tmp_path)
    assert made.orphan_prefixes == (), "nothing can be left of a folder that is new"
    again = load_or_create_marker(tmp_path)
    assert (again.marker, again.orphan_prefixes) == (made.marker, (f"{made.marker}.",))
    assert (tmp_path / "instance").stat().st_mode & 0o777 == 0o600


def test_two_folders_at_the_same_path_have_different_markers(tmp_path: Path) -> None:
    """As in two containers: each has mounted its own folder there."""
    place, aside = tmp_path / "data", tmp_path / "aside"
    place.mkdir()
    first = load_or_create_marker(place)
    place.rename(aside)
    place.mkdir()
    second = load_or_create_marker(place)
    assert first.marker != second.marker
    assert not any(first.marker.startswith(prefix[:-1]) for prefix in second.orphan_prefixes)
    aside.rename(tmp_path / "moved")
    assert load_or_create_marker(tmp_path / "moved").marker == first.marker


def test_a_copy_of_a_folder_kills_nothing_of_the_original(tmp_path: Path) -> None:
    original = folder(tmp_path, "original")
    marker = load_or_create_marker(original).marker
    shutil.copytree(original, tmp_path / "copy")
    copied = load_or_create_marker(tmp_path / "copy")
    assert copied.marker != marker and copied.orphan_prefixes == ()


def test_the_first_start_after_an_older_version_finds_that_versions_processes(tmp_path: Path) -> None:
    folder(tmp_path, "locks")
    old = f"r{hashlib.sha256(str(tmp_path.resolve()).encode()).hexdigest()[:8]}."
    first = load_or_create_marker(tmp_path)
    assert first.orphan_prefixes == (old,)
    assert load_or_create_marker(tmp_path).orphan_prefixes == (f"{first.marker}.",)


def test_a_part_of_a_marker_is_none(tmp_path: Path) -> None:
    (tmp_path / "instance").write_bytes(b"\xff12")
    made = load_or_create_marker(tmp_path)
    assert load_or_create_marker(tmp_path).marker == made.marker


def test_a_folder_that_takes_no_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "instance").mkdir()
    with pytest.raises(RefusedStart, match="instance can't be read"):
        load_or_create_marker(tmp_path)

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.coordinator.storage.open_store import open_store
from runner.errors import RefusedStart
from runner.stores.sqlite.access import MemoryAccess, SqliteAccess


async def opened_path(url: str | None, folder: Path) -> Path:
    access = await open_store(url, folder)
    try:
        assert isinstance(access, SqliteAccess) and str(access.path) in access.describe_place()
        await access.take_epoch()
        return access.path
    finally:
        await access.close()


@pytest.mark.parametrize("url", ["postgres://h/d", "sqlite:", "sqlite://x.db", "sqlite:///", "memory", ""])
def test_a_url_of_no_store_is_refused_naming_those_there_are(tmp_path: Path, url: str) -> None:
    with pytest.raises(RefusedStart, match=r"sqlite:///PATH .*memory:"):
        asyncio.run(open_store(url, tmp_path))


def test_without_a_url_the_store_is_a_file_of_the_data_folder(tmp_path: Path) -> None:
    assert asyncio.run(opened_path(None, tmp_path)) == tmp_path / "runner.db"
    assert (tmp_path / "runner.db").exists()


def test_a_path_may_be_relative_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here, there = tmp_path / "here.db", tmp_path / "there.db"
    assert asyncio.run(opened_path("sqlite:///here.db", tmp_path)) == here
    assert asyncio.run(opened_path(f"sqlite:///{there}", tmp_path)) == there
    assert here.exists() and there.exists()


def test_a_store_in_memory_touches_no_file(tmp_path: Path) -> None:
    access = asyncio.run(open_store("memory:", tmp_path))
    assert isinstance(access, MemoryAccess) and list(tmp_path.iterdir()) == []

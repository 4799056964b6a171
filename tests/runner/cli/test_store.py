"""Effect: `runner store check` as people use it."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from runner.cli.__main__ import main
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.stores.store import WriteBatch
from tests.runner.stores.store_data import chunk, inserts, job


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    store = SqliteStore(str(tmp_path / "runner.db"))
    batch = inserts(*(job(n) for n in range(1, 9)))
    batch.events = [chunk(n, 1, 1) for n in (1, 2)]
    events = b'{"a": 1}'
    for one in batch.events:
        one.body = one.body.replace(b"x" * 10, events + b"  ")
    store.commit(store.take_epoch(), batch)
    store.commit(1, WriteBatch(damaged=[(8, job(8).id, "found earlier")]))
    store.commit(1, WriteBatch(deletes=[8]))
    store.close()
    return tmp_path


def test_a_whole_store_is_reported_as_such(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "check", "--data-dir", str(data_dir)]) == 0
    assert "no damage" in capsys.readouterr().out


def test_every_damaged_row_is_listed_with_its_reason(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = apsw.Connection(str(data_dir / "runner.db"))
    for number, sql in (
        (1, "UPDATE events SET body = x'c1' WHERE n = 1"),
        (2, "DELETE FROM inputs WHERE n = 2"),
        (3, "UPDATE inputs SET body = '{' WHERE n = 3"),
        (4, "UPDATE jobs SET priority = 51 WHERE n = 4"),
        (5, "UPDATE jobs SET id = CAST(x'ff' AS TEXT) WHERE n = 5"),
        (6, "UPDATE jobs SET state = 'damaged', reason = 'found earlier' WHERE n = 6"),
    ):
        connection.execute(sql)
        assert connection.changes() == 1, number
    connection.close()
    assert main(["store", "check", "--data-dir", str(data_dir), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["integrity"] == []
    reasons = {row["number"]: row["reason"] for row in found["damaged"]}
    assert sorted(reasons) == [1, 2, 3, 4, 5, 6]
    assert "missing" in reasons[2] and "priority" in reasons[4] and "found earlier" in reasons[6]
    assert [row["id"] for row in found["damaged"] if row["number"] == 5] == ["row-5"]
    assert main(["store", "check", "--data-dir", str(data_dir)]) == 1
    assert job(3).id in capsys.readouterr().out


def test_damage_to_the_file_is_found(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = apsw.Connection(str(data_dir / "runner.db"))
    connection.execute("PRAGMA writable_schema = 1")
    connection.execute("UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'jobs_state'")
    connection.close()
    assert main(["store", "check", "--data-dir", str(data_dir)]) in (1, 2)
    shown = capsys.readouterr()
    assert "damaged" in shown.out + shown.err


def test_a_folder_without_a_store_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "check", "--data-dir", str(tmp_path)]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

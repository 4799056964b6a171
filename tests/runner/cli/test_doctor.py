"""Effect: `runner doctor` on this machine, as people use it."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runner.cli import doctor_checks
from runner.cli.doctor import format_counts, format_result
from runner.cli.doctor_findings import CheckResult, StoreHeader
from runner.stores.sqlite.sqlite_store import SqliteStore
from runner.testing import running
from tests.runner.cli.cli_process import runner
from tests.runner.served_handlers import echo

OURS = {"RUNNER_URL": "", "CUDA_VISIBLE_DEVICES": ""}
SUBJECTS = (
    *("platform", "python", "settings", "gpus", "gpu-mask", "port", "data-dir", "fsync", "sqlite"),
    *("store", "handlers", "server", "clock"),
)


def doctor(folder: Path, *words: str, **env: str) -> tuple[int, dict[str, Any]]:
    """Its exit code and findings by subject."""
    flags = ("--json", "--gpus", "none", "--no-entry-points", "--data-dir", str(folder / "data"))
    ended = runner("doctor", *flags, *words, cwd=folder, env=OURS | env)
    document = json.loads(ended.stdout)
    found = {one["subject"].replace(" ", "-"): one for one in document["findings"]}
    assert document["state"] == ("fail" if ended.returncode else document["state"])
    return ended.returncode, found


def test_every_subject_is_looked_at_and_nothing_is_left_behind(tmp_path: Path) -> None:
    code, found = doctor(tmp_path, "--port", "0")
    assert code == 0, found
    assert tuple(found) == SUBJECTS
    assert found["gpus"]["state"] == "ok" and "--gpus none" in found["gpus"]["text"]
    assert found["handlers"]["state"] == "warn" and "runner init" in found["handlers"]["fix"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_named_with_what_to_do_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "torn.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "runner.db").write_text("not a database")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, found = doctor(tmp_path, "--port", port, "--handlers", "torn.py", "--url", "http://127.0.0.1:1")
    assert code == 1
    failed = {subject for subject, one in found.items() if one["state"] == "fail"}
    assert failed == {"port", "store", "handlers", "server"}
    assert "runner handlers check" in found["handlers"]["fix"] and "--port" in found["port"]["fix"]


def test_a_data_folder_that_can_not_be_is_told_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    code, found = doctor(tmp_path, "--port", "0", "--store", f"sqlite:///{tmp_path}")
    assert code == 1 and tuple(found) == SUBJECTS
    assert "is not a folder" in found["data-dir"]["text"]
    assert found["store"]["text"] == f"cannot read {tmp_path}: Is a directory"
    below, found = doctor(tmp_path, "--port", "0", "--data-dir", str(tmp_path / "data" / "below"))
    assert below == 1 and "is not a folder" in found["data-dir"]["text"]


def test_a_config_that_is_refused_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "runner.toml").write_text('grace = "soon"\n')
    code, found = doctor(tmp_path)
    assert code == 1 and list(found) == ["platform", "python", "settings"]
    assert "grace: " in found["settings"]["text"]


@pytest.mark.slow
def test_a_running_server_is_known_by_its_data_folder_and_left_alone(tmp_path: Path) -> None:
    with running(handlers=[echo], data_dir=tmp_path / "data") as client:
        client.run(echo, 1)
        _, found = doctor(tmp_path, "--port", client.url.rpartition(":")[2])
        pid = client.server.process.pid
        assert found["server"]["text"] == f"{client.url} is ready"
    for subject in ("port", "store"):
        assert found[subject]["state"] == "ok" and f"pid {pid} at {client.url}" in found[subject]["text"]


def test_the_store_of_a_stopped_server_is_read_and_not_touched(tmp_path: Path) -> None:
    with running(handlers=[echo], data_dir=tmp_path / "data") as client:
        client.run(echo, 1)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    _, found = doctor(tmp_path, "--port", "0")
    assert found["store"]["text"].endswith("runner.db, journal mode WAL")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == before


def test_findings_come_as_lines_that_fit_80_columns(tmp_path: Path) -> None:
    ended = runner(
        "doctor", "--gpus", "none", "--port", "0", "--data-dir", str(tmp_path), cwd=tmp_path, env=OURS
    )
    *lines, empty, last = ended.stdout.splitlines()
    assert empty == "" and re.fullmatch(r"\d+ ok, \d+ warnings?, 0 errors", last)
    assert [text for text in lines if len(text) > 80 and str(tmp_path) not in text] == []
    assert any(text.startswith("ok    python    3.") for text in lines)


def test_the_headline_counts_in_plain_words() -> None:
    assert format_counts(11, 2, 0) == "11 ok, 2 warnings, 0 errors"
    assert format_counts(0, 1, 1) == "0 ok, 1 warning, 1 error"


def test_long_texts_are_wrapped_and_never_cut() -> None:
    finding = CheckResult("port", "fail", "word " * 40 + "\x1b[2J", "do " * 40)
    shown = format_result(finding, 80)
    assert max(map(len, shown.splitlines())) <= 80
    assert (
        shown.count("word") == 40 and shown.count("do ") + shown.count("do\n") >= 39 and "\x1b" not in shown
    )
    assert format_result(finding, 80, color=True).startswith("\x1b[31mfail  \x1b[0m")


def test_a_driver_that_hangs_is_given_up_and_its_process_ended() -> None:
    # No child can answer in no time.
    assert doctor_checks.survey_gpus("none", within_s=0.0) == "the NVIDIA driver did not answer within 0 s"
    left = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "stat=,args="], capture_output=True, text=True
    ).stdout
    assert [text for text in left.splitlines() if "survey" in text and not text.startswith("Z")] == []


def test_a_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"PK")
    (tmp_path / "empty").write_bytes(b"")
    assert doctor_checks.read_header(tmp_path / "none") is None
    assert doctor_checks.read_header(tmp_path / "other") == StoreHeader(False, False)
    assert doctor_checks.read_header(tmp_path / "empty") == StoreHeader(True, False)
    with closing(sqlite3.connect(tmp_path / "strange")) as db:
        db.execute("CREATE TABLE theirs (a)")
    assert doctor_checks.read_header(tmp_path / "strange") == StoreHeader(True, False, True)
    store = SqliteStore(str(tmp_path / "ours"))
    store.take_epoch()
    young = doctor_checks.read_header(tmp_path / "ours")
    store.close()
    assert young == doctor_checks.read_header(tmp_path / "ours") == StoreHeader(True, True)
    assert doctor_checks.nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert len(doctor_checks.measure_syncs(tmp_path)) == doctor_checks.SYNCS

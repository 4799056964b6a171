"""The secret of a data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.coordinator.storage.ticket_secret import SECRET_BYTES, load_or_create_secret, ticket_key
from runner.errors import RefusedStart


def test_a_folder_keeps_its_secret_for_its_owner_alone(tmp_path: Path) -> None:
    made = load_or_create_secret(tmp_path)
    assert len(made) == SECRET_BYTES and load_or_create_secret(tmp_path) == made
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "other"
    other.mkdir()
    assert load_or_create_secret(other) != made


def test_a_part_of_a_secret_is_none(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"half")
    (tmp_path / "secret.new").write_bytes(b"left behind")
    made = load_or_create_secret(tmp_path)
    assert len(made) == SECRET_BYTES and load_or_create_secret(tmp_path) == made


def test_a_folder_that_takes_no_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(RefusedStart, match="secret can't be read"):
        load_or_create_secret(tmp_path)


def test_another_token_is_another_key() -> None:
    keys = {ticket_key(secret, token) for secret in (b"a", b"b") for token in (b"", b"x", b"y")}
    assert len(keys) == 6

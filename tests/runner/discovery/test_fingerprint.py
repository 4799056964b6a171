from __future__ import annotations

import os
from importlib.util import cache_from_source
from pathlib import Path
from py_compile import compile as compile_file

from runner.discovery import fingerprint


def test_a_content_is_known_by_its_digest_and_nothing_by_none(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1")
    known = fingerprint.file_digest(str(path))
    assert fingerprint.is_unchanged(str(path), known)
    path.write_text("x = 2")
    assert not fingerprint.is_unchanged(str(path), known)
    path.unlink()
    assert fingerprint.file_digest(str(path)) == ""
    assert not fingerprint.is_unchanged(str(path), "")


def test_bytecode_goes_where_it_could_be_taken_for_that_of_the_new_content(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1")
    os.utime(path, (1_000_000.25, 1_000_000.25))
    compiled = Path(str(compile_file(str(path))))
    assert compiled == Path(cache_from_source(str(path)))
    path.write_text("x = 22")
    os.utime(path, (1_000_000.75, 1_000_000.75))
    fingerprint.drop_bytecode(str(path))
    assert compiled.exists(), "its size says that it is of another content"
    path.write_text("x = 2")
    os.utime(path, (1_000_000.75, 1_000_000.75))
    fingerprint.drop_bytecode(str(path))
    assert not compiled.exists()
    fingerprint.drop_bytecode(str(path))

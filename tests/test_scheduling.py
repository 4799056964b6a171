"""Pure: tests that share a server are handed out together, and what is named as apart is there."""

from __future__ import annotations

from tests.policy import ROOT
from tests.scheduling import APART, scope_of


def test_a_file_is_one_scope_and_a_test_with_its_own_server_is_another() -> None:
    assert scope_of("tests/api/routes/test_routes.py::test_a[x::y]") == "tests/api/routes/test_routes.py"
    assert scope_of("tests/faults/test_hang.py::test_a") == "tests/faults/test_hang.py::test_a"


def test_the_files_that_are_named_exist() -> None:
    assert [name for name in APART if not (ROOT / name).exists()] == []

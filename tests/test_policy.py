"""Pure: that no module falls out of the policy unnoticed."""

from __future__ import annotations

from pathlib import Path

from tests.policy import FOLDERS, NAMED, ROOT, policy_modules

#: As many as there are. One that is taken apart or put together changes it; a move or a new name must not.
AT_LEAST = 64


def test_there_are_as_many_policy_modules_as_before() -> None:
    assert len(policy_modules()) >= AT_LEAST


def test_every_folder_and_every_name_of_the_policy_stands_for_modules() -> None:
    found = [Path(module) for module in policy_modules()]
    for folder in FOLDERS:
        assert any(path.is_relative_to(folder) for path in found), folder
    for folder, names in NAMED.items():
        assert names <= {path.stem for path in found if path.is_relative_to(folder)}, folder


def test_modules_are_found_in_packages_too(tmp_path: Path) -> None:
    for name, first in (
        ("gpu/a.py", "Pure: a."),
        ("gpu/deep/er/b.py", "Pure: b."),
        ("gpu/deep/c.py", "Effect: c."),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""{first}"""\n')
    assert policy_modules(tmp_path) == ["gpu/a.py", "gpu/deep/er/b.py"]


def test_the_paths_are_those_of_files() -> None:
    assert all((ROOT / module).is_file() for module in policy_modules())

"""Effect: builds and applies the shim that keeps what a power cut would leave of a folder (powercut.c)."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

SOURCE = Path(__file__).with_name("powercut.c")


@cache
def build() -> Path:
    """The compiled shim, made once a test run; skips the test where there is no C compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("the power-cut shim needs a C compiler")
    library = Path(mkdtemp(prefix="powercut-")) / "powercut.so"
    command = [compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def env(shadow: Path, data: Path) -> dict[str, str]:
    """What a process needs in its environment so that `shadow` holds what is synced of the folder `data`.

    Its children inherit it, and write into the same shadow. What lies in `data` now counts as synced, so
    call it anew for every round, while nothing runs there.
    """
    shutil.rmtree(shadow, ignore_errors=True)
    (shadow / "inodes").mkdir(parents=True)
    shutil.copytree(data, shadow / "names", ignore=_not_regular)
    for copy in filter(Path.is_file, (shadow / "names").rglob("*")):
        inode = (data / copy.relative_to(shadow / "names")).stat().st_ino
        (shadow / "inodes" / str(inode)).hardlink_to(copy)
    return {
        "LD_PRELOAD": str(build()),
        "POWERCUT_ROOT": str(data.resolve()),
        "POWERCUT_SHADOW": str(shadow.resolve()),
    }


def restore(shadow: Path, data: Path) -> None:
    """Make `data` what the disk would hold after a power cut; all its processes must have ended."""
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(shadow / "names", data)


def _not_regular(folder: str, names: list[str]) -> list[str]:
    paths = [Path(folder, name) for name in names]
    return [path.name for path in paths if not path.is_dir() and not path.is_file()]

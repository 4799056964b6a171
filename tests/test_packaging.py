"""Effect: builds the package, installs it out of reach of the checkout, and runs a job with it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The first test of this file builds what the others look at.
pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parent.parent
#: Folder of the tree -> where an installation has it.
PLACES = {"runner": "runner", "gpu": "runner/_site/gpu", "api": "runner/_site/api"}
DEADLINE_S = 60.0

#: A user's handler in a folder that has modules of the same names as ours.
HANDLER = """
import api
import gpu
import runner

@runner.handler("whose")
def whose(data: dict[str, str]) -> dict[str, str]:
    return data | {"api": api.OWNER, "gpu": gpu.OWNER, "runner": runner.__file__}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build needs of the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in PLACES:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    """A source distribution."""
    code = "from hatchling.build import build_sdist; build_sdist('dist')"
    command(sys.executable, "-c", code, cwd=tree)
    (built,) = (tree / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built of the source distribution alone: so that is known to be whole, too."""
    folder = tmp_path_factory.mktemp("wheel")
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    command(sys.executable, "-m", "pip", "wheel", *flags, str(sdist), cwd=folder)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and the dependencies of this one.

    A folder that is named in a `.pth` file is searched, but the `.pth` files in it are not read: so the
    hook of an editable installation stays behind, and with it the checkout.
    """
    folder = tmp_path_factory.mktemp("installed")
    command(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    python = folder / "bin" / "python"
    flags = ("--no-deps", "--no-index", "--no-compile")
    command(sys.executable, "-m", "pip", "--python", str(python), "install", *flags, str(wheel), cwd=folder)
    borrow_packages(python)
    return python


def borrow_packages(python: Path) -> None:
    """Let an environment find the packages of this one, except those whose `.pth` files lead elsewhere."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = command(str(python), "-c", code, cwd=python.parent)
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(packages.strip(), "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")


def test_source_distribution_has_every_file_of_the_tree(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"{folder}/{path}" for folder in PLACES for path in files_of(folder)} - names == set()


def test_wheel_has_every_file_of_the_tree(wheel: Path) -> None:
    assert left_out(names_in(wheel)) == set()


def test_a_package_that_is_left_out_would_be_seen(wheel: Path) -> None:
    without = {name for name in names_in(wheel) if not name.startswith("runner/executor/")}
    assert "runner/executor/bootstrap.py" in left_out(without)


def test_wheel_takes_one_name_in_site_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"runner"}
    assert "runner/py.typed" in names_in(wheel)


def test_wheel_holds_nothing_that_the_tree_has_not(wheel: Path) -> None:
    expected = {f"{PLACES[folder]}/{path}" for folder in PLACES for path in files_of(folder)}
    assert {name for name in names_in(wheel) if ".dist-info/" not in name} == expected


def test_installation_does_not_reach_the_checkout(python: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u, json, sys; print(json.dumps([sys.path, u.find_spec('runner').origin,"
    code += " [name for name in ('gpu', 'api', 'tests', 'benchmarks') if u.find_spec(name)]]))"
    path, origin, found = json.loads(command(str(python), "-P", "-c", code, cwd=tmp_path))
    assert str(ROOT) not in path
    assert Path(origin).is_relative_to(python.parent.parent)
    assert found == []


def test_installed_command_runs_a_job_beside_the_users_own_gpu_and_api(python: Path, tmp_path: Path) -> None:
    (tmp_path / "h.py").write_text(HANDLER)
    for name in ("api", "gpu"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"OWNER = 'the user of {name}'\n")
    with serving(python, tmp_path) as url:
        runner = str(python.with_name("runner"))
        output = json.loads(command(runner, "run", "--url", url, "whose", "greeting=hello", cwd=tmp_path))
    assert Path(output.pop("runner")).is_relative_to(python.parent.parent)
    assert output == {"greeting": "hello", "api": "the user of api", "gpu": "the user of gpu"}


@pytest.mark.slow
def test_type_checker_reads_an_editable_installation(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    command(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=tmp_path)
    python = folder / "bin" / "python"
    borrow_packages(python)
    flags = ("--no-deps", "--no-build-isolation", "--no-index")
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", *flags)
    command(*pip, "-e", str(tree), cwd=tmp_path)
    (tmp_path / "use.py").write_text("from runner import Client\nreveal_type(Client().devices())\n")
    checked = command(
        sys.executable, "-m", "mypy", "--python-executable", str(python), "use.py", cwd=tmp_path
    )
    assert "list[dict[str, Any]]" in checked


@contextmanager
def serving(python: Path, folder: Path) -> Iterator[str]:
    """The installed `runner serve` with the handlers of `folder/h.py`: its URL while it runs."""
    read_fd, write_fd = os.pipe()
    args = ["serve", "--port", "0", "--gpus", "none", "--handlers", "h.py", "--data-dir", "data"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [str(python.with_name("runner")), *args],
            cwd=folder,
            env=clean_environment() | {"JOB_RUNNER_READY_FD": str(write_fd)},
            pass_fds=(write_fd,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(write_fd)
    try:
        with os.fdopen(read_fd) as pipe:
            heard = select.select([pipe], [], [], DEADLINE_S)[0]
            line = pipe.readline() if heard else ""
        assert line, f"the server never was ready:\n{(folder / 'server.log').read_text()}"
        yield json.loads(line)["url"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE_S) == 0, (folder / "server.log").read_text()
    finally:
        server.kill()
        server.wait()


def command(*words: str, cwd: Path) -> str:
    """What a command prints; its errors fail the test in full."""
    done = subprocess.run(
        words, cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE_S * 2
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """This process's, without anything that would lead to the checkout or set up the server."""
    ours = ("RUNNER_", "JOB_RUNNER_", "PYTHONPATH", "VIRTUAL_ENV", "COVERAGE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def files_of(folder: str) -> set[str]:
    """The files of a folder of the tree that an installation needs, relative to it."""
    root = ROOT / folder
    kinds = (".py", ".html", ".css", ".js")
    found = {path for path in root.rglob("*") if path.suffix in kinds or path.name == "py.typed"}
    return {str(path.relative_to(root)) for path in found}


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def left_out(names: set[str]) -> set[str]:
    """Files of the tree, by their place in an installation, that are not among `names`."""
    return {f"{PLACES[folder]}/{path}" for folder in PLACES for path in files_of(folder)} - names

"""Effect: the GPU benchmark as it is called, on a GPU that is made up and where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.device.measures import MEASURES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=100)


@pytest.mark.timeout(120)
def test_every_measurement_runs_and_a_made_up_gpu_is_told_as_one(tmp_path: Path) -> None:
    done = run("--device", "fake", "--quick", "--json", "out.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SIMULATED" in done.stdout
    told = json.loads((tmp_path / "out.json").read_text())
    assert (told["simulated"], told["failed"]) == (True, [])
    assert (told["machine"]["gpu"], told["machine"]["driver"]) == ("Fake GPU", "570.1")
    found = {(each["name"], each["of"]): each["values"] for each in told["figures"]}
    packed, single = (found["4 small models", of][0] for of in ("packed by bytes", "one at a time"))
    assert packed > single, "what only waits leaves the device to others"
    assert found["cancel until memory is free, p50", "runner"][0] > 0
    assert found["a GPU job of 100 ms", "plain"][0] == pytest.approx(100, rel=0.5)
    assert {name for name, _ in found} >= {"a small model's job", "overhead on a GPU job of 100 ms"}


def test_it_ends_at_its_limit(tmp_path: Path) -> None:
    done = run("--device", "fake", "--limit", "1", cwd=tmp_path)
    assert (done.returncode, "--limit" in done.stdout) == (1, True), done.stdout + done.stderr


def test_without_a_gpu_it_says_so_and_what_to_do(tmp_path: Path) -> None:
    done = run("--device", "GPU-ffffffff", cwd=tmp_path)
    assert done.returncode == 3 and "there is no GPU" in done.stdout, done.stdout + done.stderr
    assert "--device fake" in done.stdout


def test_an_unknown_measurement_is_refused(tmp_path: Path) -> None:
    done = run("--only", "speed", cwd=tmp_path)
    assert done.returncode == 2 and all(name in done.stderr for name in MEASURES)

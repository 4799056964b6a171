"""What the process that looks once at the GPUs answers."""

from __future__ import annotations

import json
import os

import pytest

from runner.coordinator.devices.scan import scan
from runner.processes import child as child_processes
from tests.fakes.fake_gpus import Card
from tests.fakes.fake_nvml import LIBRARY_NOT_FOUND, FakeDriver

A, B = Card("GPU-a1111"), Card("GPU-b1111")


def test_it_tells_the_driver_the_cards_and_what_the_mask_leaves() -> None:
    answer = scan("all", {"CUDA_VISIBLE_DEVICES": "1"}, nvml=FakeDriver(A, B).nvml)
    assert answer["driver"] == "570.1"
    assert answer["cards"] == ["Fake GPU, 24 GiB"] * 2
    assert answer["visible"] == 1 and answer["chosen"] == ["gpu0: Fake GPU, 24 GiB"]


def test_without_a_driver_it_says_so() -> None:
    answer = scan("all", {}, nvml=FakeDriver(init_error=LIBRARY_NOT_FOUND).nvml)
    assert (answer["driver"], answer["cards"], answer["chosen"]) == (None, [], [])
    assert "no NVIDIA driver" in answer["notes"][0]


@pytest.mark.parametrize("gpus", ["7", "many"])
def test_what_can_not_be_taken_is_an_error_and_not_an_end(gpus: str) -> None:
    answer = scan(gpus, {}, nvml=FakeDriver(A).nvml)
    assert gpus in answer["error"] and answer["visible"] == 1


def test_a_process_of_its_own_answers_and_ends() -> None:
    ours, theirs = os.pipe()
    child = child_processes.start_child(
        "survey", child_processes.SurveyConfig("sim:2x24GiB", theirs), pass_fds=(theirs,)
    )
    os.close(theirs)
    with os.fdopen(ours, "rb") as answers:
        answer = json.loads(answers.read())
    assert child.process.wait(10) == 0
    child.close()
    assert answer["chosen"] == ["sim0: Simulated GPU, 24 GiB", "sim1: Simulated GPU, 24 GiB"]

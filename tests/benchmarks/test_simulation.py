"""Policies in virtual time: waits that were worked out by hand, and what holds for every policy."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from benchmarks.simulation import mix
from benchmarks.simulation.devices import parse_devices
from benchmarks.simulation.engine import JobsNeverStarted, StartedJob, simulate
from benchmarks.simulation.job import GIB, InvalidJob, JobClassCache, SimulatedJob, check_fit
from benchmarks.simulation.jobfile import parse
from benchmarks.simulation.limits import add_limits
from benchmarks.simulation.ours import RunnerPolicy
from benchmarks.simulation.packer import PackingPolicy
from benchmarks.simulation.policies import POLICIES
from gpu.devices.device import Device, sim

#: Two small jobs share a device of 10 GiB; a large one waits for both; a small one comes behind it.
LARGE_BEHIND_SMALL = """\
submit_s,handler,run_s,vram_gib
0,small,100,5
1,small,40,5
2,large,10,10
3,tiny,20,5
"""
#: One job at a time, room for one model. Two of the other model come between two of this one.
TWO_MODELS = """\
submit_s,handler,run_s,load_s,vram_gib
0,a,10,5,10
1,b,10,5,10
2,a,10,5,10
3,b,10,5,10
"""
#: A gang needs both devices; small jobs keep coming to each.
GANG = """\
submit_s,handler,run_s,vram_gib,gpus
0,small,10,10,1
0,small,20,10,1
1,gang,5,10,2
2,late,30,10,1
"""
PRIORITIES = """\
submit_s,handler,run_s,vram_gib,priority
0,a,10,10,50
1,b,10,10,10
2,c,10,10,90
"""
#: Three jobs fit side by side by their bytes, but only one slot is as large as the largest.
SLOTS = """\
submit_s,handler,run_s,vram_gib
0,a,10,3
1,b,10,3
2,c,10,6
"""
#: Text, devices, executors a device, and for each policy the waits in order of submission.
CASES = {
    "a large job behind small ones": (
        LARGE_BEHIND_SMALL,
        "1x10GiB",
        None,
        {
            # The tiny one takes what the second leaves at 41; the large one starts at 100, when all left.
            "ours": [0, 0, 98, 38],
            "skip": [0, 0, 98, 38],
            # Nobody passes the large one: it ends at 110.
            "fifo": [0, 0, 98, 107],
            # One slot: 0-100, 100-140, 140-150, 150-170.
            "slots": [0, 99, 138, 147],
        },
    ),
    "two models and room for one": (
        TWO_MODELS,
        "1x10GiB",
        1,
        {
            # At 15 the second of the loaded model goes first (to 25); then b loads, and its second is warm.
            "ours": [5, 29, 13, 37],
            # 5-15, load, 20-30, load, 35-45, load, 50-60.
            "fifo": [5, 19, 33, 47],
            "skip": [5, 19, 33, 47],
            "slots": [5, 19, 33, 47],
        },
    ),
    "a gang": (
        GANG,
        "2x10GiB",
        None,
        {
            # The late one takes the device that is free at 10, until 40: it overtakes the gang.
            "ours": [0, 0, 39, 8],
            "skip": [0, 0, 39, 8],
            # The gang takes both at 20, the late one follows at 25.
            "fifo": [0, 0, 19, 23],
            "slots": [0, 0, 19, 23],
        },
    ),
    "priorities": (
        PRIORITIES,
        "1x10GiB",
        None,
        {policy: [0, 19, 8] for policy in POLICIES},
    ),
    "slots of the largest": (
        SLOTS,
        "1x10GiB",
        None,
        {"ours": [0, 0, 8], "fifo": [0, 0, 8], "skip": [0, 0, 8], "slots": [0, 9, 18]},
    ),
}


def waits_of(policy: str, jobs: Sequence[SimulatedJob], devices: Sequence[Device]) -> list[float]:
    """In order of submission."""
    waits: dict[int, float] = {}

    def watch(now: float, begun: StartedJob) -> None:
        waits[begun.job.number] = now + begun.is_cold * begun.job.load_s - begun.job.submit_s

    outcome = simulate(jobs, POLICIES[policy](jobs, devices), watch)
    assert outcome.waits_of() == sorted(waits.values())
    return [waits[job.number] for job in jobs]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_waits_are_those_worked_out_by_hand(name: str, policy: str) -> None:
    text, devices, max_executors, expected = CASES[name]
    assert (
        waits_of(policy, parse(text.splitlines()), parse_devices(devices, max_executors)) == expected[policy]
    )


def test_figures_are_those_worked_out_by_hand() -> None:
    jobs = parse(TWO_MODELS.splitlines())
    devices = parse_devices("1x10GiB", 1)
    ours = simulate(jobs, POLICIES["ours"](jobs, devices)).figures()
    fifo = simulate(jobs, POLICIES["fifo"](jobs, devices)).figures()
    assert (ours["cold_starts"], fifo["cold_starts"]) == (2, 4)
    assert (ours["max_overtaken"], fifo["max_overtaken"]) == (1, 0)
    assert (ours["makespan_s"], fifo["makespan_s"]) == (50, 60)
    assert (ours["device_s"], fifo["device_s"]) == (50, 60)
    assert (fifo["mean_wait_s"], fifo["p50_wait_s"], fifo["p95_wait_s"], fifo["max_wait_s"]) == (
        26,
        19,
        47,
        47,
    )
    assert fifo["big"] == dict.fromkeys(("mean_wait_s", "p50_wait_s", "p95_wait_s", "max_wait_s"))


@pytest.mark.parametrize(("model", "longest_s"), [("a", 30), ("b", 30 + 8 / 4 * 30 + 23)])
def test_a_flood_of_one_tenant_does_not_hold_up_another(model: str, longest_s: float) -> None:
    """Runs of 30 s on two devices for two, loads of 23 s: a newcomer waits for a run, and without its model
    for 8 on four places that spare a load and for its own; in order of age it waits for the whole flood."""
    rows = ["0,a,30,23,40,flood"] * 300 + [f"{300 + 60 * each},{model},30,23,40,new" for each in range(20)]
    jobs = parse(["submit_s,handler,run_s,load_s,vram_gib,tenant", *rows])
    devices = parse_devices("2x80GiB", 2)
    ours = simulate(jobs, POLICIES["ours"](jobs, devices)).figures()
    fifo = simulate(jobs, POLICIES["fifo"](jobs, devices)).figures()
    assert ours["tenants"]["new"]["max_wait_s"] <= longest_s
    assert fifo["tenants"]["new"]["mean_wait_s"] > 1_000
    assert ours["makespan_s"] < 1.1 * fifo["makespan_s"]
    assert sum(each["device_s"] for each in ours["tenants"].values()) == pytest.approx(ours["device_s"])


def test_jobs_of_more_devices_have_figures_of_their_own() -> None:
    jobs = parse(GANG.splitlines())
    figures = simulate(jobs, POLICIES["skip"](jobs, parse_devices("2x10GiB"))).figures()
    assert figures["big"]["mean_wait_s"] == figures["big"]["max_wait_s"] == 39
    assert figures["big4"]["mean_wait_s"] is None
    assert figures["max_overtaken"] == 1
    assert figures["device_s"] == 10 + 20 + 30 + 2 * 5


def test_a_job_without_a_limit_gets_one_in_steps() -> None:
    text = "submit_s,handler,run_s,timeout_s\n0,a,10,\n0,a,10.5,\n0,a,100,\n0,a,10,40\n"
    jobs = parse(text.splitlines())
    made = add_limits(jobs, 3.0)
    assert [round(job.job_class.limit_s, 1) for job in made] == [32.0, 32.0, 362.0, 45.3]
    assert made[0].job_class is made[1].job_class, "equal classes are one object"
    assert all(job.job_class.limit_s == math.inf for job in add_limits(jobs, None)[:3])
    assert all(job.run_s <= job.job_class.limit_s for job in add_limits(jobs, 1.0))


def test_a_short_job_goes_before_a_reserved_start_and_a_long_one_does_not() -> None:
    rows = ["0,a,100,10,1", "1,big,10,10,2", "2,long,100,10,1", "3,short,20,10,1"]
    jobs = add_limits(parse(["submit_s,handler,run_s,vram_gib,gpus", *rows]), 1.0)
    assert waits_of("ours", jobs, parse_devices("2x10GiB")) == [0, 99, 108, 0]
    assert waits_of("skip", jobs, parse_devices("2x10GiB"))[1] == 119


def random_jobs(seed: int, count: int = 300) -> list[SimulatedJob]:
    rng, classes = random.Random(seed), JobClassCache()
    jobs, now = [], 0.0
    for n in range(1, count + 1):
        now += rng.choice([0.0, 0.5, 5.0])
        gpus = rng.choice([1, 1, 1, 1, 2, 3])
        handler = rng.choice("abcd")
        cls = classes.get(handler, rng.choice([0, 2, 5, 9]) * GIB, gpus, rng.choice([50, 50, 40]))
        jobs.append(SimulatedJob(n, now, rng.choice([0.0, 1.0, 7.0, 30.0]), rng.choice([0.0, 2.0]), cls))
    return jobs


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("policy", POLICIES)
def test_no_device_is_given_twice_and_every_job_runs_once(policy: str, seed: int) -> None:
    jobs, devices = random_jobs(seed), parse_devices("2x10GiB,2x16GiB", 3)
    caps = {device.id: device.cap_bytes for device in devices}
    held: list[tuple[float, StartedJob]] = []
    starts: Counter[int] = Counter()

    def watch(now: float, begun: StartedJob) -> None:
        job = begun.job
        starts[job.number] += 1
        assert now >= job.submit_s
        assert len(set(begun.devices)) == len(begun.devices) == job.job_class.gpus
        held[:] = [(end, each) for end, each in held if end > now]
        assert begun.executor not in {each.executor for _, each in held}
        end = now + begun.is_cold * job.load_s + job.run_s
        held.append((end, begun))
        for device in begun.devices:
            there = [each.job.need_bytes for until, each in held if device in each.devices and until > now]
            assert sum(there) <= caps[device]
            assert len(there) <= 3

    simulate(jobs, POLICIES[policy](jobs, devices), watch)
    assert starts == Counter(job.number for job in jobs)


def test_in_strict_order_nobody_is_overtaken() -> None:
    for seed in range(3):
        jobs, devices = random_jobs(seed), parse_devices("4x16GiB", 3)
        for policy in ("fifo", "slots"):
            assert simulate(jobs, POLICIES[policy](jobs, devices)).max_overtaken == 0
        assert simulate(jobs, POLICIES["skip"](jobs, devices)).max_overtaken > 0


def test_overtaking_is_counted_as_a_plain_count_would() -> None:
    jobs, devices = random_jobs(7, 150), parse_devices("3x16GiB", 2)
    order: list[SimulatedJob] = []
    outcome = simulate(jobs, POLICIES["ours"](jobs, devices), lambda now, begun: order.append(begun.job))
    assert outcome.max_overtaken == max(
        sum(
            other.number > job.number and other.job_class.priority <= job.job_class.priority
            for other in order[:place]
        )
        for place, job in enumerate(order)
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_two_runs_are_equal(policy: str) -> None:
    devices = [sim(place, mix.DEVICE_BYTES, 1) for place in range(mix.DEVICES)]
    first, second = (
        simulate(jobs, POLICIES[policy](jobs, devices)).figures()
        for jobs in (mix.jobs(0.6, seed=3, count=400), mix.jobs(0.6, seed=3, count=400))
    )
    assert first == second


@pytest.mark.slow
def test_a_plan_that_is_left_out_would_have_done_nothing() -> None:
    """What saves plans must not change what the product would do."""

    class Always(RunnerPolicy):
        def submit(self, job: SimulatedJob) -> None:
            super().submit(job)
            self._is_settled = False

    devices = parse_devices("2x10GiB,2x16GiB", 3)
    for seed in range(2):
        jobs = random_jobs(seed, 150)
        sparing, thorough = simulate(jobs, RunnerPolicy(devices)), simulate(jobs, Always(devices))
        assert sparing.figures() == thorough.figures()


def test_an_idle_executor_of_ours_is_unloaded_in_time() -> None:
    text = "submit_s,handler,run_s,load_s,vram_gib\n0,a,1,5,1\n300,a,1,5,1\n700,a,1,5,1\n"
    jobs = parse(text.splitlines())
    # Idle from 6 on, it is warm at 300; idle from 301 on, it was unloaded at 601.
    assert simulate(jobs, RunnerPolicy(parse_devices("1x10GiB"), 300.0)).waits_of() == [0, 5, 5]


def test_a_smaller_device_is_one_slot_for_what_fits_it() -> None:
    text = "submit_s,handler,run_s,vram_gib\n0,a,10,20\n0,b,10,5\n0,c,10,5\n"
    assert waits_of("slots", parse(text.splitlines()), parse_devices("1x20GiB,1x8GiB")) == [0, 0, 10]


def test_a_policy_that_forgets_jobs_is_told() -> None:
    jobs = parse(["submit_s,handler,run_s,gpus", "0,a,1,2"])
    with pytest.raises(JobsNeverStarted, match="1 of 1 jobs never started"):
        simulate(jobs, PackingPolicy(parse_devices("1x10GiB"), is_strict=True))


def test_a_job_that_fits_nowhere_is_told_before() -> None:
    jobs = parse(["submit_s,handler,run_s,vram_gib,gpus", "0,a,1,30,2"])
    with pytest.raises(InvalidJob, match=r"job 1 .*30 GiB on each of 2 devices at once; 1 of 3"):
        check_fit(jobs, parse_devices("1x80GiB,2x24GiB"))

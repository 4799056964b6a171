from __future__ import annotations

from pathlib import Path

import pytest

from gpu.devices.cgroups import MemoryGroup, limit_memory, memory_groups

MIB = 1 << 20


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_no_control_groups_no_limits(tmp_path: Path) -> None:
    assert memory_groups(tmp_path) == []


def test_version_2_counts_outer_groups_too(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": f"{512 * MIB}\n",
            "sys/fs/cgroup/a/memory.current": f"{300 * MIB}\n",
            "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
        },
    )
    assert memory_groups(root) == [MemoryGroup(512 * MIB, 200 * MIB)]


def test_version_1_within_a_container_sees_its_group_at_the_root(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{256 * MIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{50 * MIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {60 * MIB}\n",
        },
    )
    assert memory_groups(root) == [MemoryGroup(256 * MIB, 0)]


def test_the_largest_number_is_no_limit(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert memory_groups(root) == []


def test_a_group_that_does_not_tell_its_cache_is_taken_as_it_is(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "1000",
            "sys/fs/cgroup/memory.current": "400",
        },
    )
    assert memory_groups(root) == [MemoryGroup(1000, 400)]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], (1000, 400)),
        ([MemoryGroup(500, 100)], (500, 100)),
        ([MemoryGroup(2000, 1700)], (1000, 700)),
        ([MemoryGroup(500, 600)], (500, 600)),
        ([MemoryGroup(800, 100), MemoryGroup(500, 450)], (500, 450)),
    ],
)
def test_what_can_be_had_is_the_least_of_machine_and_groups(
    groups: list[MemoryGroup], expected: tuple[int, int]
) -> None:
    assert limit_memory(1000, 600, groups) == expected

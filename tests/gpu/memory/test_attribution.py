from __future__ import annotations

from gpu.memory.attribution import ProcessOwners, lowest_level


def test_of_several_devices_the_least_that_is_known_counts() -> None:
    assert lowest_level([]) == "exact"
    assert lowest_level(["exact", "reports", "processes"]) == "reports"


def owners(**pids: list[int]) -> ProcessOwners:
    made = ProcessOwners()
    for name, listed in pids.items():
        made.claim(int(name[1:]), listed)
    return made


def test_each_executor_has_the_bytes_of_all_its_processes() -> None:
    assert owners(_1=[10, 11], _2=[20]).bytes_by_executor({10: 5, 11: 2, 20: 7, 99: 100}) == {1: 7, 2: 7}


def test_who_is_not_listed_has_no_figure() -> None:
    assert owners(_1=[10], _2=[20]).bytes_by_executor({20: 0, 30: 4}) == {2: 0}


def test_one_process_that_is_not_told_spoils_the_sum() -> None:
    assert owners(_1=[10, 11], _2=[20]).bytes_by_executor({10: 5, 11: None, 20: 7, 30: None}) == {2: 7}


def test_a_new_list_replaces_the_old_one() -> None:
    made = owners(_1=[10, 11])
    made.claim(1, [11, 12])
    assert made.bytes_by_executor({10: 1, 11: 2, 12: 4}) == {1: 6}


def test_a_number_that_went_to_another_executor_stays_there() -> None:
    made = owners(_1=[10, 11], _2=[11])
    assert made.bytes_by_executor({10: 1, 11: 2}) == {1: 1, 2: 2}
    made.remove(1)
    assert made.bytes_by_executor({10: 1, 11: 2}) == {2: 2}
    made.remove(1)
    made.remove(2)
    assert made.bytes_by_executor({10: 1, 11: 2}) == {}

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpu.job_class import JobClass
from gpu.scheduling.class_backlog import ClassBacklog


def make_backlog(*job_numbers: int) -> ClassBacklog:
    backlog = ClassBacklog()
    for job_number in job_numbers:
        backlog.add(job_number)
    return backlog


def test_classes_are_equal_by_value_and_hash_alike() -> None:
    one, other = (JobClass("q", "h", "1", "m", 50, None, 1) for _ in range(2))
    assert one == other and hash(one) == hash(other) and one.key == ("h", "1", "m")
    assert one != JobClass("q", "h", "1", "m", 50, 0, 1)


def test_what_comes_first_again_comes_before_the_others() -> None:
    backlog = make_backlog(3, 4)
    backlog.add(2, first=True)
    assert (backlog.first, backlog.peek(5), len(backlog)) == (2, [2, 3, 4], 3)


def test_who_waits_already_keeps_its_place() -> None:
    backlog = make_backlog(1, 2)
    assert not backlog.add(1)
    assert backlog.peek(5) == [1, 2]


def test_who_left_the_middle_is_passed_over() -> None:
    backlog = make_backlog(1, 2, 3, 4)
    assert backlog.remove(2) and not backlog.remove(2)
    assert 2 not in backlog
    assert backlog.peek(2) == [1, 3] and backlog.peek(2, skip=1) == [3, 4]
    backlog.remove_all((1,))
    assert backlog.first == 3


def test_who_left_and_came_back_stands_at_the_end() -> None:
    backlog = make_backlog(1, 2, 3)
    backlog.remove(2)
    backlog.add(2)
    assert backlog.peek(5) == [1, 3, 2]


def test_a_line_that_most_have_left_holds_no_dead_places() -> None:
    backlog = make_backlog(*range(1000))
    for job_number in range(1, 999):
        backlog.remove(job_number)
    assert backlog.peek(5) == [0, 999]
    assert len(backlog._order) <= 2 * len(backlog) + 65


def test_how_many_are_ahead_is_found_without_counting() -> None:
    backlog = make_backlog(*range(10, 20))
    assert [backlog.count_ahead(job_number) for job_number in (5, 10, 15, 99)] == [0, 0, 5, 10]


@given(st.lists(st.tuples(st.sampled_from(["add", "first", "remove", "take"]), st.integers(0, 8))))
def test_line_is_as_a_plain_list(steps: list[tuple[str, int]]) -> None:
    backlog, model = ClassBacklog(), list[int]()
    for step, job_number in steps:
        match step:
            case "add" | "first":
                assert backlog.add(job_number, first=step == "first") == (job_number not in model)
                if job_number not in model:
                    model.insert(0 if step == "first" else len(model), job_number)
            case "remove":
                assert backlog.remove(job_number) == (job_number in model)
                model = [each for each in model if each != job_number]
            case _:
                backlog.remove_all(model[:job_number])
                model = model[job_number:]
        assert backlog.peek(20) == model and len(backlog) == len(model)
        assert not model or backlog.first == model[0]

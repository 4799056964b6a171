from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpu.job_class import JobClass
from gpu.scheduling.class_backlog import ClassBacklog


def make_backlog(*ns: int) -> ClassBacklog:
    line = ClassBacklog()
    for n in ns:
        line.add(n)
    return line


def test_classes_are_equal_by_value_and_hash_alike() -> None:
    one, other = (JobClass("q", "h", "1", "m", 50, None, 1) for _ in range(2))
    assert one == other and hash(one) == hash(other) and one.key == ("h", "1", "m")
    assert one != JobClass("q", "h", "1", "m", 50, 0, 1)


def test_what_comes_first_again_comes_before_the_others() -> None:
    line = make_backlog(3, 4)
    line.add(2, first=True)
    assert (line.first, line.peek(5), len(line)) == (2, [2, 3, 4], 3)


def test_who_waits_already_keeps_its_place() -> None:
    line = make_backlog(1, 2)
    assert not line.add(1)
    assert line.peek(5) == [1, 2]


def test_who_left_the_middle_is_passed_over() -> None:
    line = make_backlog(1, 2, 3, 4)
    assert line.remove(2) and not line.remove(2)
    assert 2 not in line
    assert line.peek(2) == [1, 3] and line.peek(2, skip=1) == [3, 4]
    line.remove_all((1,))
    assert line.first == 3


def test_who_left_and_came_back_stands_at_the_end() -> None:
    line = make_backlog(1, 2, 3)
    line.remove(2)
    line.add(2)
    assert line.peek(5) == [1, 3, 2]


def test_a_line_that_most_have_left_holds_no_dead_places() -> None:
    line = make_backlog(*range(1000))
    for n in range(1, 999):
        line.remove(n)
    assert line.peek(5) == [0, 999]
    assert len(line._order) <= 2 * len(line) + 65


def test_how_many_are_ahead_is_found_without_counting() -> None:
    line = make_backlog(*range(10, 20))
    assert [line.count_ahead(n) for n in (5, 10, 15, 99)] == [0, 0, 5, 10]


@given(st.lists(st.tuples(st.sampled_from(["add", "first", "remove", "take"]), st.integers(0, 8))))
def test_line_is_as_a_plain_list(steps: list[tuple[str, int]]) -> None:
    line, model = ClassBacklog(), list[int]()
    for step, n in steps:
        match step:
            case "add" | "first":
                assert line.add(n, first=step == "first") == (n not in model)
                if n not in model:
                    model.insert(0 if step == "first" else len(model), n)
            case "remove":
                assert line.remove(n) == (n in model)
                model = [each for each in model if each != n]
            case _:
                line.remove_all(model[:n])
                model = model[n:]
        assert line.peek(20) == model and len(line) == len(model)
        assert not model or line.first == model[0]

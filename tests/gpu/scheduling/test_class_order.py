"""Classes are found in order, by pool, by key and by need, however they come and go."""

from __future__ import annotations

from dataclasses import replace

from gpu.job_class import JobClass
from gpu.scheduling.class_order import (
    AGE_MAX_INTERVALS,
    PLACED_PER_PLAN,
    REORDER_S_PER_CLASS,
    ClassOrder,
    Placement,
)
from tests.gpu.planner_harness import G, make_class


def numbered(number: int, need: int | None = G, handler: str = "a") -> JobClass:
    return replace(make_class(handler, need), queue=f"q{number}")


def place(job_class: JobClass, as_of: float = 0.0) -> Placement:
    """Rank by the number in the queue's name; among fitting ones in reverse."""
    number = int(job_class.queue[1:])
    return Placement((number,), (-number,), job_class.gpus > 0, job_class.gpus or 1, job_class.need_bytes)


def select(order: ClassOrder, fits: int = G, limited: str = "", warm: JobClass | None = None) -> list[str]:
    """The names of the selected queues."""
    selection = order.select(
        [warm.key] if warm is not None else [],
        lambda job_class: job_class.handler == limited,
        lambda placement: (placement.need_bytes or 0) <= fits and placement.need_bytes is not None,
    )
    return [job_class.queue for job_class in selection.classes]


def filled(*classes: JobClass) -> ClassOrder:
    order = ClassOrder(exact=2, window=2)
    for job_class in classes:
        order.add(job_class)
    order.refresh(0.0, place)
    return order


def test_the_first_are_selected_then_those_of_each_need_that_fits() -> None:
    order = filled(*[numbered(number) for number in (3, 1, 2)], numbered(8, 9 * G), numbered(9, 5 * G))
    assert select(order) == ["q1", "q2", "q3"]
    assert select(order, fits=5 * G) == ["q1", "q2", "q3", "q9"]
    assert select(order, fits=0) == ["q1", "q2"]


def test_one_whose_need_is_unknown_hides_no_other() -> None:
    order = filled(*[numbered(number, 9 * G) for number in range(3)], numbered(7, None), numbered(8))
    assert select(order) == ["q0", "q1", "q8"]


def test_handlers_at_their_limit_are_left_out_but_for_warm_executors() -> None:
    first = [numbered(number, handler="lim") for number in range(3)]
    order = filled(*first, numbered(5), numbered(6))
    assert select(order, limited="lim") == ["q5", "q6"]
    assert select(order, limited="lim", warm=first[0]) == ["q5", "q6", "q0", "q1"]
    assert select(order, limited="lim", warm=make_class("cold")) == ["q5", "q6"]


def test_lists_of_which_more_wait_are_named() -> None:
    order = filled(*[numbered(number) for number in range(3)])
    selection = order.select([], lambda _: False, lambda _: False)
    assert [[job_class.queue for job_class in cut] for cut in selection.cut_lists] == [["q0", "q1"]]


def test_a_class_that_comes_or_goes_is_in_its_place_before_the_next_plan() -> None:
    order = filled(*[numbered(number) for number in (1, 2, 3, 4)])
    order.add(numbered(0))
    order.add(numbered(0))
    order.refresh(0.0, place)
    assert select(order, fits=0) == ["q0", "q1"]
    order.remove(numbered(0))
    order.add(numbered(7, 8 * G, "b"))
    order.remove(numbered(7, 8 * G, "b"))
    order.add(numbered(6, 8 * G, "b"))
    order.refresh(0.0, place)
    order.remove(numbered(6, 8 * G, "b"))
    order.remove(numbered(1))
    assert select(order, fits=9 * G) == ["q2", "q3", "q4"]


def test_few_need_no_order() -> None:
    order = filled(*[numbered(number) for number in (1, 2, 3)])
    assert not order.is_small
    order.remove(numbered(2))
    order.refresh(0.0, place)
    assert order.is_small and list(order.classes) == [numbered(1), numbered(3)]
    order.refresh(0.0, place)
    order.add(numbered(0))
    order.refresh(0.0, place)
    assert select(order) == ["q0", "q1", "q3"]


def reverse(job_class: JobClass, as_of: float) -> Placement:
    placement = place(job_class)
    return replace(placement, rank=placement.backfill_rank)


class CountedPlaces:
    """Places classes as of a time, later ones in reverse, and counts how many."""

    def __init__(self) -> None:
        self.count = 0
        self.times: set[float] = set()

    def __call__(self, job_class: JobClass, as_of: float) -> Placement:
        self.count += 1
        self.times.add(as_of)
        return reverse(job_class, as_of) if as_of else place(job_class)


def test_few_plans_in_a_long_time_make_the_order_again_at_once() -> None:
    order, places = filled(*[numbered(number) for number in (1, 2, 3)]), CountedPlaces()
    order.refresh((AGE_MAX_INTERVALS * 3 - 0.5) * REORDER_S_PER_CLASS, places)
    assert select(order, fits=0) == ["q1", "q2"] and places.count == 0
    order.refresh(AGE_MAX_INTERVALS * 3 * REORDER_S_PER_CLASS, places)
    assert select(order, fits=0) == ["q3", "q2"] and places.count == 3


def test_many_plans_make_the_order_again_bit_by_bit_for_one_time() -> None:
    count = 4 * PLACED_PER_PLAN
    order, places = filled(*[numbered(number) for number in range(count)]), CountedPlaces()
    begin = count * REORDER_S_PER_CLASS
    order.refresh(begin - 1e-9, places)
    order.refresh(begin, places)
    assert places.count == 0
    order.refresh(begin + 10.5 * REORDER_S_PER_CLASS, places)
    assert places.count == 10
    # A long pause allows no more than a bounded number.
    order.refresh(begin + count * REORDER_S_PER_CLASS, places)
    assert places.count == 10 + PLACED_PER_PLAN and select(order, fits=0) == ["q0", "q1"]
    step = PLACED_PER_PLAN * REORDER_S_PER_CLASS
    for number in range(1, 4):
        order.refresh(begin + count * REORDER_S_PER_CLASS + number * step + 1e-6, places)
    assert places.count == count and places.times == {begin}
    assert select(order, fits=0) == [f"q{count - 1}", f"q{count - 2}"]


def test_what_changes_while_the_next_order_is_made_is_in_both() -> None:
    order, places = filled(*[numbered(number) for number in range(1, 9)]), CountedPlaces()
    begin = 8 * REORDER_S_PER_CLASS
    order.refresh(begin, places)
    order.refresh(begin + 4.5 * REORDER_S_PER_CLASS, places)
    assert places.count == 4
    # Of the first half, placed already, and of the second half; some come, some go, one changes.
    for number in (1, 8):
        order.remove(numbered(number))
    for number in (0, 7, 2, 9):
        order.add(numbered(number))
    order.refresh(begin + 4.6 * REORDER_S_PER_CLASS, places)
    assert select(order, fits=0) == ["q0", "q2"] and places.count == 4 + 2 * 4
    order.refresh(begin + 9 * REORDER_S_PER_CLASS, places)
    assert places.count == 12 + 2
    assert select(order, fits=0) == ["q9", "q7"]
    assert select(order) == ["q9", "q7", "q6", "q5"]


def test_the_order_is_made_again_when_that_is_asked() -> None:
    order, places = filled(*[numbered(number) for number in (1, 2, 3)]), CountedPlaces()
    order.refresh(0.0, places)
    assert places.count == 0
    order.reorder()
    order.refresh(0.0, places)
    assert places.count == 3


def test_nothing_is_selected_before_there_is_an_order() -> None:
    assert select(ClassOrder()) == []


def test_classes_that_were_never_ordered_are_not_moved() -> None:
    order = ClassOrder(exact=2, window=2)
    order.add(numbered(1))
    order.settle(lambda _: False, lambda _, __: False, place)
    order.refresh(0.0, place)
    order.add(numbered(2))
    order.add(numbered(3))
    order.refresh(0.0, place)
    assert select(order)[:2] == ["q1", "q2"]

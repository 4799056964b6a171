"""Classes are found in order, by pool, by key and by need, however they come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpu.job_class import JobClass
from gpu.scheduling.class_order import REORDER_S_PER_CLASS, ClassOrder, Placement
from tests.gpu.planner_harness import G, make_class


def numbered(number: int, need: int | None = G, handler: str = "a") -> JobClass:
    return replace(make_class(handler, need), queue=f"q{number}")


def place(job_class: JobClass) -> Placement:
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


@pytest.mark.parametrize(("now", "expected"), [(0.0, ["q1", "q2"]), (3 * REORDER_S_PER_CLASS, ["q3", "q2"])])
def test_the_order_is_made_again_after_a_while(now: float, expected: list[str]) -> None:
    order = filled(*[numbered(number) for number in (1, 2, 3)])

    def reverse(job_class: JobClass) -> Placement:
        placement = place(job_class)
        return replace(placement, rank=placement.backfill_rank)

    order.refresh(now, reverse)
    assert select(order, fits=0) == expected


def test_the_order_is_made_again_when_that_is_asked() -> None:
    order = filled(*[numbered(number) for number in (1, 2, 3)])
    placed: list[JobClass] = []

    def count(job_class: JobClass) -> Placement:
        placed.append(job_class)
        return place(job_class)

    order.refresh(0.0, count)
    assert placed == []
    order.reorder()
    order.refresh(0.0, count)
    assert len(placed) == 3

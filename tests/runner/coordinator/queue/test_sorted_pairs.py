"""A column does what a sorted list of pairs does."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runner.coordinator.queue.sorted_pairs import SortedPairs

pairs = st.tuples(st.integers(0, 3), st.integers(1, 40))


class Model(RuleBasedStateMachine):
    """Parts are tiny, so that every step may split or empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.column = SortedPairs(part_max=4)
        self.model: list[tuple[int, int]] = []

    @rule(pair=pairs)
    def add(self, pair: tuple[int, int]) -> None:
        assert self.column.add(*pair) is (pair not in self.model)
        self.model = sorted({*self.model, pair})

    @rule(pair=pairs)
    def discard(self, pair: tuple[int, int]) -> None:
        assert self.column.discard(*pair) is (pair in self.model)
        self.model = [one for one in self.model if one != pair]

    @rule(number=st.integers(1, 40))
    def discard_number(self, number: int) -> None:
        """Of several pairs with this number the first one goes."""
        with_it = [pair for pair in self.model if pair[1] == number]
        assert self.column.discard_number(number) is bool(with_it)
        self.model = [one for one in self.model if one not in with_it[:1]]

    @rule(until=st.integers(-1, 3), count=st.integers(0, 12))
    def take_until(self, until: int, count: int) -> None:
        due = [pair for pair in self.model if pair[0] <= until][:count]
        assert self.column.remove_until(until, count) == [n for _, n in due]
        self.model = self.model[len(due) :]

    @rule(pair=pairs)
    def rank(self, pair: tuple[int, int]) -> None:
        assert self.column.count_before(*pair) == sum(one < pair for one in self.model)

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.column) == len(self.model)
        assert self.column.first_pairs(len(self.model) + 1) == self.model
        assert self.column.first_pairs(3) == self.model[:3]
        assert self.column.first_pair == (self.model[0] if self.model else None)
        for at in range(4):
            assert ((at, 7) in self.column) is ((at, 7) in self.model)


TestModel = Model.TestCase


@given(st.lists(pairs))
def test_it_is_made_of_pairs_in_any_order(given_pairs: list[tuple[int, int]]) -> None:
    assert SortedPairs(given_pairs).first_pairs(1_000) == sorted(set(given_pairs))


@given(st.lists(st.integers(1, 40)), st.booleans())
def test_it_is_made_of_numbers(ns: list[int], in_order: bool) -> None:
    given_ns = sorted(set(ns)) if in_order else ns
    made = SortedPairs.from_numbers(array("q", given_ns), part_max=4)
    assert made.first_pairs(100) == [(0, n) for n in sorted(set(ns))]
    assert len(made) == len(set(ns)) and made.add(0, 41) and made.first_pair == (0, min([*ns, 41]))


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_hundred_thousand_keep_their_order(shuffled: bool) -> None:
    ns = list(range(1, 100_001))
    if shuffled:
        random.Random(7).shuffle(ns)
    held = SortedPairs((0, n) for n in ns)
    for n in range(2, 100_001, 2):
        assert held.discard(0, n)
    assert (len(held), held.count_before(0, 50_001)) == (50_000, 25_000)
    assert held.remove_until(0, 60_000) == list(range(1, 100_001, 2))
    assert (len(held), held.first_pair) == (0, None)

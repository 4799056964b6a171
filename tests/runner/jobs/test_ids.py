from __future__ import annotations

import os
import time
import uuid

import pytest

from runner.jobs.ids import IdSource, new_id, uuid7


def test_the_text_is_a_version_7_uuid_of_its_moment() -> None:
    text = uuid7(1_700_000_000_123, bytes(range(10)))
    parsed = uuid.UUID(text)
    assert str(parsed) == text and parsed.version == 7 and parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == 1_700_000_000_123


@pytest.mark.parametrize(
    ("random", "text"),
    [
        (bytes(10), "00000000-0001-7000-8000-000000000000"),
        (b"\xff" * 10, "00000000-0001-7fff-bfff-ffffffffffff"),
    ],
)
def test_version_and_variant_stand_whatever_the_randomness(random: bytes, text: str) -> None:
    assert uuid7(1, random) == text


def test_ids_of_one_process_rise() -> None:
    ids = [new_id() for _ in range(5_000)]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    assert abs((uuid.UUID(ids[-1]).int >> 80) - time.time() * 1000) < 5_000


@pytest.mark.parametrize("moments", [[5] * 3_000, list(range(3_000, 0, -1))], ids=["stands", "steps back"])
def test_ids_rise_though_the_clock_does_not(moments: list[int]) -> None:
    source = IdSource()
    ids = [source.new(moment) for moment in moments]
    assert ids == sorted(ids) and len(set(ids)) == len(ids)


def test_a_forked_child_gives_ids_of_its_own() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert theirs != new_id() and uuid.UUID(theirs).version == 7

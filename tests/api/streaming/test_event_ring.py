"""Pure: the ring of encoded events."""

from __future__ import annotations

from api.streaming.event_ring import EventRing, StoredEvent, encode_event, encode_without_id


def events(first: int, last: int, kind: str = "log") -> list[StoredEvent]:
    return [(seq, kind, b"{}") for seq in range(first, last + 1)]


def test_an_event_is_encoded_as_id_name_and_one_line() -> None:
    assert encode_event((7, "log", b'{"a":1}')) == b'id: 7\nevent: log\ndata: {"a":1}\n\n'


def test_an_event_without_an_id_keeps_to_one_line() -> None:
    assert encode_without_id("snapshot", b'{"a":\n1}') == b'event: snapshot\ndata: {"a": 1}\n\n'


def test_a_reader_takes_all_that_is_new() -> None:
    ring = EventRing()
    ring.add(events(5, 9))
    assert ring.read_after(6) == (b"".join(encode_event(event) for event in events(7, 9)), 9)
    assert not ring.contains(4) and ring.contains(5) and not ring.contains(10)


def test_readers_side_by_side_get_the_same_bytes() -> None:
    ring = EventRing()
    ring.add(events(1, 3))
    assert ring.read_after(0)[0] is ring.read_after(0)[0]
    ring.add(events(4, 4))
    assert ring.read_after(0)[1] == 4


def test_known_events_are_left_out() -> None:
    ring = EventRing()
    ring.add(events(1, 3))
    ring.add(events(2, 5))
    assert (ring.first_seq, ring.last_seq) == (1, 5)


def test_a_hole_empties_the_ring() -> None:
    ring = EventRing()
    ring.add(events(1, 3))
    ring.add(events(7, 8))
    assert (ring.first_seq, ring.last_seq) == (7, 8)


def test_the_oldest_go_beyond_the_bound() -> None:
    ring = EventRing(max_bytes=10 * len(encode_event((10, "log", b"{}"))))
    for seq in range(10, 60):
        ring.add(events(seq, seq))
    assert ring.last_seq == 59
    assert 50 <= ring.first_seq < 59


def test_one_write_is_bounded_but_never_empty() -> None:
    ring = EventRing()
    ring.add([(1, "log", b"x" * 100), (2, "log", b"x" * 100)])
    assert ring.read_after(0, max_bytes=10)[1] == 1


def test_hidden_types_still_move_the_cursor() -> None:
    ring = EventRing()
    ring.add([(1, "log", b"{}"), (2, "done", b"{}"), (3, "log", b"{}")])
    assert ring.read_after(0, frozenset({"done"})) == (encode_event((2, "done", b"{}")), 3)

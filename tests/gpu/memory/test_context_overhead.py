from __future__ import annotations

from gpu.memory.context_overhead import MIN_CHANGE_BYTES, ContextOverhead

M = 1 << 20


def test_the_smallest_that_was_seen_is_the_floor() -> None:
    contexts = ContextOverhead()
    assert contexts.minimum_bytes("card/570") is None and contexts.minimum_bytes("card/570", "2.13") is None
    assert contexts.record("card/570", "2.13", 400 * M)
    assert not contexts.record("card/570", "2.13", 500 * M)
    assert not contexts.record("card/570", "2.13", 400 * M - MIN_CHANGE_BYTES // 2)
    assert contexts.record("card/570", "2.13", 300 * M)
    assert contexts.minimum_bytes("card/570", "2.13") == 300 * M


def test_what_can_not_be_is_not_learned() -> None:
    assert not ContextOverhead().record("card/570", "2.13", -1)


def test_each_kind_and_each_torch_has_its_own() -> None:
    contexts = ContextOverhead()
    contexts.record("card/570", "2.12", 500 * M)
    contexts.record("card/570", "2.13", 300 * M)
    assert contexts.minimum_bytes("card/570", "2.12") == 500 * M
    assert contexts.minimum_bytes("card/570", "1.0") is None
    assert contexts.minimum_bytes("card/570") == 500 * M
    assert contexts.minimum_bytes("card/580") is None
    again = ContextOverhead.loads(contexts.dumps())
    assert again.dumps() == {"card/570": {"2.12": 500 * M, "2.13": 300 * M}}

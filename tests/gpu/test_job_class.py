from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from gpu.job_class import JobClass

BASE = JobClass("q", "h", "1", "m", 50, 1 << 30, 1)
#: Another value for each field that is compared; a new field needs one here.
OTHER = {
    "queue": "other",
    "handler": "other",
    "version": "2",
    "model": "other",
    "priority": 51,
    "need_bytes": None,
    "gpus": 2,
    "size": "s",
    "group": "g",
    "tenant": "t",
    "limit_s": 1.0,
    "strict": True,
    "alone_on_device": True,
    "alone_in_executor": True,
    "avoided_devices": ("gpu0",),
    "allowed_devices": ("gpu0",),
    "may_evict": False,
}


@pytest.mark.parametrize("name", [field.name for field in fields(JobClass) if field.compare])
def test_every_value_distinguishes_classes(name: str) -> None:
    other = replace(BASE, **{name: OTHER[name]})  # type: ignore[arg-type]
    assert other != BASE and hash(other) != hash(BASE)
    again = replace(BASE, **{name: OTHER[name]})  # type: ignore[arg-type]
    assert again == other and hash(again) == hash(other) and {other: 1}[again] == 1


def test_a_class_never_changes() -> None:
    with pytest.raises(FrozenInstanceError):
        BASE.queue = "other"  # type: ignore[misc]

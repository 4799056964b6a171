"""Pure: ids of devices of the coordinator's node and of other nodes."""

from __future__ import annotations

import pytest

from gpu.devices.device_id import CHARS_MAX, DeviceId, is_cpu_id, parse_device_id
from runner.formats.names import is_name

LONGEST = "n" * (CHARS_MAX - len(".gpu0")) + ".gpu0"


@pytest.mark.parametrize(
    ("text", "device_id"),
    [
        ("gpu0", DeviceId("gpu0")),
        ("sim12", DeviceId("sim12")),
        ("cpu", DeviceId("cpu")),
        ("rack-7.gpu0", DeviceId("gpu0", "rack-7")),
        ("a.example.org.gpu10", DeviceId("gpu10", "a.example.org")),
        ("10.0.0.7.cpu", DeviceId("cpu", "10.0.0.7")),
        # A node may be named as a device is.
        ("gpu0.gpu1", DeviceId("gpu1", "gpu0")),
        (LONGEST, DeviceId("gpu0", LONGEST.removesuffix(".gpu0"))),
    ],
)
def test_an_id_is_taken_apart_and_put_together(text: str, device_id: DeviceId) -> None:
    assert parse_device_id(text) == device_id
    assert str(device_id) == text
    # What names a device in a path or a body of the API.
    assert is_name(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "gpu", "gpu00", "gpu12345", "cpu0", "GPU-3d1f", "gpu\N{ARABIC-INDIC DIGIT ONE}", "gpu0\n"),
        *(".gpu0", "a..gpu0", "a/b.gpu0", "a.gpu0.", "n" + LONGEST),
    ],
)
def test_other_text_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="is not a device id"):
        parse_device_id(text)


def test_the_cpu_of_every_node_is_one() -> None:
    texts = ("cpu", "rack-7.cpu", "gpu0", "cpu.gpu0", "a/b.cpu")
    assert [is_cpu_id(text) for text in texts] == [True, True, False, False, False]

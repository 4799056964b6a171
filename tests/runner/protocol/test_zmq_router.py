"""The router keeps its word whatever is sent to it."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import RefusedStart
from runner.protocol import framing
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import Ack, AttemptEnded, ExecutorGone, ExecutorUsage, Hello
from runner.protocol.zmq_dealer import ZmqDealer
from runner.protocol.zmq_router import ZmqRouter

ENDED = worker_protocol.encode(AttemptEnded("job", 1, 1, None))


def hello(name: str = "w", token: str = "secret", protocol: int = worker_protocol.PROTOCOL) -> bytes:
    return worker_protocol.encode(Hello(protocol, token, "node", "worker", name, 1, 1))


class Ends:
    """A router and one dealer, both on the running loop."""

    def __init__(self, folder: Path) -> None:
        self.bad: list[str] = []
        self.hellos: list[str] = []
        self.came: list[tuple[str, list[bytes]]] = []
        self.down: list[list[bytes]] = []
        self.links = 0
        self.endpoint = f"ipc://{folder}/s"
        self.router = ZmqRouter(
            self.endpoint,
            "secret",
            on_frame=lambda name, messages: self.came.append((name, messages)),
            on_hello=lambda name, _: self.hellos.append(name),
            on_bad_frame=self.bad.append,
        )
        self.dealer = self.another()

    def another(self) -> ZmqDealer:
        return ZmqDealer(self.endpoint, on_frame=self.down.append, on_link=self._linked)

    def _linked(self) -> None:
        self.links += 1

    async def __aenter__(self) -> Ends:
        self.router.open()
        self.dealer.open()
        await self.until(lambda: self.links == 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dealer.close()
        self.router.close()

    async def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, (self.bad[-3:], self.hellos, self.came[-3:])
            await asyncio.sleep(0.001)


def test_peer_is_known_by_its_hello(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            assert not ends.router.send("w", [ENDED])
            ends.dealer.send([ENDED])
            ends.dealer.send([hello(token="wrong")])
            ends.dealer.send([hello(protocol=99)])
            ends.dealer.send([hello(name="")])
            await ends.until(lambda: len(ends.bad) == 4)
            assert not ends.came and not ends.hellos
            ends.dealer.send([hello(), ENDED])
            await ends.until(lambda: ends.came)
            assert (ends.hellos, ends.came) == (["w"], [("w", [ENDED])])
            assert ends.router.send("w", [worker_protocol.encode(Ack(1))])
            await ends.until(lambda: ends.down)
            ends.router.forget_peer("w")
            assert not ends.router.send("w", [worker_protocol.encode(Ack(1))])

    asyncio.run(scenario())


def test_second_hello_of_a_name_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            ends.dealer.send([hello()])
            second = ends.another()
            second.open()
            await ends.until(lambda: ends.links == 2)
            second.send([hello()])
            await ends.until(lambda: len(ends.hellos) == 2)
            ends.dealer.send([ENDED])
            await ends.until(lambda: ends.bad)
            second.close()

    asyncio.run(scenario())


def test_gone_peer_is_a_plain_false(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            ends.dealer.send([hello()])
            await ends.until(lambda: ends.hellos)
            ends.dealer.close()
            await ends.until(lambda: not ends.router.send("w", [ENDED]))
            ends.dealer = ends.another()
            ends.dealer.open()

    asyncio.run(scenario())


def test_a_frame_of_a_hundred_mebibytes_arrives_whole_and_keeps_the_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            large = [bytes(12 << 20)] * 8
            ends.dealer.send([hello()])
            await ends.until(lambda: ends.hellos)
            assert ends.router.send("w", large)
            await ends.until(lambda: ends.down)
            assert ends.down == [large] and ends.links == 1
            assert ends.dealer.send(large)
            await ends.until(lambda: ends.came)
            assert ends.came == [("w", large)] and not ends.bad and ends.links == 1

    asyncio.run(scenario())


def test_peer_that_does_not_read_is_a_plain_false(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            ends.dealer.send([hello()])
            await ends.until(lambda: ends.hellos)
            big = b"x" * 1000
            sent = 0
            while ends.router.send("w", [big]):
                sent += 1
                assert sent < 100_000
            await ends.until(lambda: len(ends.down) == sent)
            assert ends.router.send("w", [big])

    asyncio.run(scenario())


def test_nothing_stays_unread(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            ends.dealer.send([hello()])
            await ends.until(lambda: ends.hellos)
            for round_ in range(1, 6):
                for _ in range(600):
                    assert ends.dealer.send([ENDED])
                    assert ends.router.send("w", [ENDED])
                await ends.until(lambda: len(ends.came) == len(ends.down) == 600 * round_)  # noqa: B023

    asyncio.run(scenario())


def test_mutated_frames_are_counted_and_a_healthy_peer_goes_on(tmp_path: Path) -> None:
    """Fixed seed: what fails once fails again."""
    chance = random.Random(7)
    seeds = [
        framing.pack([each])
        for each in (
            hello(),
            ENDED,
            worker_protocol.encode(ExecutorUsage([(1, 2)])),
            worker_protocol.encode(ExecutorGone(1, "a", "b")),
        )
    ]

    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            ends.dealer.send([hello()])
            noisy = ends.another()
            noisy.open()
            await ends.until(lambda: ends.links == 2)
            for number in range(3_000):
                frame = bytearray(chance.choice(seeds))
                for _ in range(chance.randint(1, 6)):
                    frame[chance.randrange(len(frame))] = chance.randrange(256)
                noisy._socket.send_multipart([bytes(frame)] * chance.choice([1, 1, 1, 0, 3]) or [b""])
                if number % 100 == 0:
                    ends.dealer.send([ENDED])
                    await asyncio.sleep(0)
            await ends.until(lambda: len([name for name, _ in ends.came if name == "w"]) >= 30)
            assert ends.router.bad_frames == len(ends.bad) > 1_000
            noisy.close()

    asyncio.run(scenario())


def test_raw_noise_on_the_socket_does_no_harm(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Ends(tmp_path) as ends:
            for _ in range(20):
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.connect(ends.endpoint.removeprefix("ipc://"))
                    raw.send(random.Random(3).randbytes(5_000))
            ends.dealer.send([hello()])
            await ends.until(lambda: ends.hellos)

    asyncio.run(scenario())


def test_long_path_is_refused_in_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        router = ZmqRouter(
            f"ipc://{tmp_path}/{'x' * 108}", "", on_frame=print, on_hello=print, on_bad_frame=print
        )
        with pytest.raises(RefusedStart, match="longer than 107 bytes"):
            router.open()

    asyncio.run(scenario())

"""Effect: rubbish on the socket that workers connect to, beside a healthy worker."""

from __future__ import annotations

import json
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from runner.protocol import framing
from runner.protocol import worker as worker_protocol
from runner.protocol.worker import (
    Ack,
    AttemptEnded,
    AttemptEvents,
    AttemptStarted,
    ExecutorUsage,
    Hello,
    NumberedFrame,
)
from tests.faults.server_fixture import ROOT, LiveServer, ServerFixture, until

FRAMES = 10_000
NOISY_LINKS = 200
GROWTH_BYTES = 10 << 20
#: Put before everything else on the path: tells of every object that is unpickled, with who did it.
WATCHER = """
import os, sys
def _watch(event, arguments):
    if event == "pickle.find_class":
        with open(os.environ["PICKLE_WATCH"], "a") as file:
            file.write(f"{os.getpid()} {sys.argv} {arguments}\\n")
sys.addaudithook(_watch)
"""


def seeds() -> list[bytes]:
    """Frames that are well formed, of every kind that a worker sends first."""
    job = "01890000-0000-7000-8000-000000000000"
    messages = [
        Hello(worker_protocol.PROTOCOL, "token", "node", "worker", "r.cpu.1.abc", 1, 1, []),
        NumberedFrame(1),
        AttemptEnded(job, 1, 1, None),
        AttemptEvents(job, 1, 1, [("progress", 0.0, b"{}")]),
        AttemptStarted(job, 1, 0.0),
        ExecutorUsage([(1, 1)]),
        Ack(1),
    ]
    packed = [worker_protocol.encode(message) for message in messages]
    frames = [framing.pack([message]) for message in packed] + [framing.pack(packed)]
    deep = b"\x91" * 5_000 + b"\x90"
    return [*frames, deep, b"", b"\xdd\xff\xff\xff\xff", pickle.dumps(Path("/")), json.dumps([1]).encode()]


def mutate(frame: bytes, chance: random.Random) -> bytes:
    """The frame with a few bytes changed, cut, doubled or put in."""
    changed = bytearray(frame)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0 if changed:
                changed[at % len(changed)] = chance.randrange(256)
            case 1:
                del changed[at : at + chance.randint(1, 20)]
            case 2:
                changed[at:at] = changed[:at][-50:]
            case _:
                changed[at:at] = chance.randbytes(chance.randint(1, 20))
    return bytes(changed)


def send_frames(endpoint: str) -> None:
    """Mutated frames of ten peers, now and then in several parts, over about 2 s.

    Back when the input ends: what a peer has sent may be lost with it.
    """
    chance, good, rest = random.Random(20), seeds(), threading.Event()
    with zmq.Context(io_threads=1) as context, ExitStack() as stack:
        dealers = [stack.enter_context(context.socket(zmq.DEALER)) for _ in range(10)]
        for dealer in dealers:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(endpoint)
        for number in range(FRAMES):
            parts = [mutate(chance.choice(good), chance)]
            if number % 50 == 0:
                parts += [chance.randbytes(10)] * 2
            dealers[number % len(dealers)].send_multipart(parts)
            if number % 100 == 0:
                rest.wait(0.02)
        sys.stdin.read()


def send_noise(path: str, links: int) -> None:
    """Bytes that are no ZMTP at all, or begin like it."""
    chance = random.Random(21)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
    for number in range(links):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(path)
            try:
                link.sendall((greeting if number % 2 else b"") + chance.randbytes(chance.randint(1, 3_000)))
            except OSError:
                # It may hang up in the middle.
                continue


def job_s(server: LiveServer, count: int = 60) -> float:
    """The 99th percentile of the seconds that small jobs take, one after another."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        answer = server.http.post(
            "/v1/jobs", json={"handler": "echo", "input": {}}, headers={"Prefer": "wait=5"}
        )
        took.append(time.monotonic() - began)
        assert answer.json()["state"] == "succeeded", answer.text
    return sorted(took)[-2]


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bad_frames(server: LiveServer) -> int:
    lines = server.http.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("runner_bad_frames_total")).split()[1]))


def start_watched(server_fixture: ServerFixture) -> tuple[LiveServer, Path]:
    """A server whose every process tells when it unpickles anything."""
    watcher, told = server_fixture.folder / "watcher", server_fixture.folder / "unpickled"
    watcher.mkdir()
    (watcher / "sitecustomize.py").write_text(WATCHER)
    path = f"{watcher}:{server_fixture.tree}"
    return server_fixture.start(env={"PYTHONPATH": path, "PICKLE_WATCH": str(told)}), told


def attacked(server: LiveServer, path: str) -> float:
    """How long small jobs take while another process sends all its frames."""
    program = f"from tests.faults.test_frame_fuzz import send_frames; send_frames('ipc://{path}')"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE) as attacker:
        until(lambda: bad_frames(server) > 0, "the attack goes on")
        took_s = job_s(server)
        until(lambda: bad_frames(server) == FRAMES, "all frames are counted, once")
        attacker.communicate()
    return took_s


@pytest.mark.serial
def test_rubbish_on_the_workers_socket_is_counted_and_does_no_harm(server_fixture: ServerFixture) -> None:
    server, told = start_watched(server_fixture)
    path = json.loads((server_fixture.data / "lock").read_text())["runtime"] + "/workers.sock"
    before_s = job_s(server)
    worker, before_bytes = server_fixture.pids_of_role("worker"), rss_bytes(server.pid)
    seen_s = attacked(server, path)
    send_noise(path, NOISY_LINKS)
    # Twice as long is what must hold on a machine of its own; what attacks takes a core here.
    assert seen_s <= max(2 * before_s, 0.1)
    assert rss_bytes(server.pid) - before_bytes <= GROWTH_BYTES
    assert server_fixture.pids_of_role("worker") == worker
    assert job_s(server, 20) <= max(2 * before_s, 0.1)
    assert 0 < server.log.read_text().count("dropped a bad frame") <= 30
    assert "Traceback" not in server.log.read_text()
    assert not told.exists() or not told.read_text()


def test_mutated_messages_decode_or_are_refused_with_an_error_of_the_decoder() -> None:
    chance, good = random.Random(22), seeds()
    refused = 0
    for _ in range(FRAMES):
        try:
            for message in framing.unpack(mutate(chance.choice(good), chance)):
                worker_protocol.tag_of(message)
                worker_protocol.from_worker_decoder.decode(message)
        except worker_protocol.UNDECODABLE:
            refused += 1
    assert refused > FRAMES // 2

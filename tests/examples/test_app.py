"""Effect: the example app between a browser and a real server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from runner.client.events import SseParser
from runner.testing import running

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def browser() -> Iterator[httpx2.Client]:
    """A client of the app, which runs in a process of its own as a user would start it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with running(handlers=[EXAMPLES / "train_digits.py"]) as client:
        environment = os.environ | {"RUNNER_URL": client.url, "PORT": port}
        app = subprocess.Popen([sys.executable, str(EXAMPLES / "app.py")], env=environment)
        try:
            wait_for(int(port))
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=40, trust_env=False) as browser:
                yield browser
        finally:
            app.terminate()
            app.wait(10)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the app did not start"


def events_of(text: str) -> list[tuple[str, str, dict[str, object]]]:
    """Id, type and data of each event of a stream."""
    return [(frame.id or "", frame.name, json.loads(frame.data)) for frame in SseParser().feed(text.encode())]


def test_page_needs_nothing_from_elsewhere(browser: httpx2.Client) -> None:
    page = browser.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "EventSource" in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_stream_is_passed_through_and_goes_on_behind_an_id(browser: httpx2.Client) -> None:
    job = browser.post("/trainings", json={"epochs": 2}).json()["id"]
    whole = events_of(browser.get(f"/trainings/{job}/events").text)
    ids = [int(event_id) for event_id, kind, _ in whole if kind not in ("snapshot", "waiting")]
    assert ids == list(range(1, len(ids) + 1))
    assert whole[-1][1:] == ("done", whole[-1][2])
    assert whole[-1][2]["state"] == "succeeded"
    rest = events_of(browser.get(f"/trainings/{job}/events", headers={"Last-Event-ID": str(ids[-3])}).text)
    assert [event for event in rest if event[1] != "snapshot"] == whole[-2:]
    picture = browser.get(f"/trainings/{job}/confusion_matrix.png")
    assert picture.content.startswith(b"\x89PNG\r\n\x1a\n")


def test_cancel_on_the_page_reaches_the_job(browser: httpx2.Client) -> None:
    job = browser.post("/trainings", json={"epochs": 200}).json()["id"]
    assert browser.post(f"/trainings/{job}/cancel").status_code == 202
    _, kind, data = events_of(browser.get(f"/trainings/{job}/events").text)[-1]
    assert (kind, data["state"]) == ("done", "cancelled")


def test_wrong_wishes_and_unknown_trainings_are_told(browser: httpx2.Client) -> None:
    assert browser.post("/trainings", json={"epochs": 0}).status_code == 422
    unknown = browser.get("/trainings/0193a6b0-0000-7000-8000-000000000000/events")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")

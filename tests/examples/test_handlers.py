"""Effect: the example handlers under a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import JobCancelled, JobFailed
from runner.client.events import LogEvent, MetricEvent, OutputEvent, ProgressEvent
from runner.testing import ServedClient, running

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def client() -> Iterator[ServedClient]:
    files = ["echo.py", "stream_words.py", "train_digits.py", "vectors.py"]
    with running(handlers=[EXAMPLES / file for file in files]) as client:
        yield client


@pytest.mark.slow
def test_training_gives_accuracy_and_a_picture(client: ServedClient) -> None:
    job = client.submit("train_digits", {"epochs": 2})
    output = job.result(timeout="50s")
    assert output["accuracy"] > 0.5
    reference = output["confusion_matrix"]
    picture = job.file(reference["name"])
    assert picture.startswith(PNG)
    assert len(picture) == reference["size"]


@pytest.mark.slow
def test_training_shows_every_epoch(client: ServedClient) -> None:
    events = list(client.submit("train_digits", {"epochs": 2}).events())
    shown = [event for event in events if isinstance(event, ProgressEvent)]
    assert [event.done for event in shown] == [1, 2]
    assert shown[-1].details.keys() == {"loss", "accuracy"}
    figures = [event.name for event in events if isinstance(event, MetricEvent)]
    assert figures == ["loss", "accuracy"] * 2
    assert any("1347 digits" in event.text for event in events if isinstance(event, LogEvent))


@pytest.mark.slow
def test_equal_seeds_train_equal_networks(client: ServedClient) -> None:
    first, second = client.map("train_digits", [{"epochs": 1, "seed": 7}] * 2, result_timeout="50s")
    assert (first["loss"], first["accuracy"]) == (second["loss"], second["accuracy"])


@pytest.mark.slow
def test_cancelled_training_stops_by_itself(client: ServedClient) -> None:
    job = client.submit("train_digits", {"epochs": 1000})
    assert any(isinstance(event, ProgressEvent) for event in job.events(types=["progress"]))
    job.cancel("seen enough")
    with pytest.raises(JobCancelled, match="seen enough"):
        job.result(timeout="20s")
    # It heeded the flag: its executor was not ended and trains the next one.
    assert client.run("train_digits", {"epochs": 1}, result_timeout="50s")["epochs"] == 1


@pytest.mark.parametrize("wish", [{"epochs": 0}, {"learning_rate": 2}, {"hidden": 1}, {"seed": -1}])
def test_training_refuses_what_is_out_of_bounds(client: ServedClient, wish: dict[str, float]) -> None:
    with pytest.raises(Exception, match=f"/input/{next(iter(wish))}"):
        client.submit("train_digits", wish)


def test_words_are_streamed_in_order(client: ServedClient) -> None:
    job = client.submit("stream_words", {"text": "one two three", "pause_s": 0.01})
    chunks = [event.chunk for event in job.events() if isinstance(event, OutputEvent)]
    assert chunks == job.result() == ["one ", "two ", "three "]


def test_late_reader_gets_every_word(client: ServedClient) -> None:
    job = client.submit("stream_words", {"text": "one two three", "pause_s": 0})
    job.result(timeout="20s")
    chunks = [event.chunk for event in job.events(types=["output"]) if isinstance(event, OutputEvent)]
    assert chunks == ["one ", "two ", "three "]


def test_smallest_handlers_answer(client: ServedClient) -> None:
    assert client.run("echo", {"a": 1}) == {"a": 1}
    assert client.run("count", {"to": 2, "pause_s": 0}) == {"counted": 2}


def test_vectors_are_made_many_at_once_and_a_wrong_text_fails_alone(client: ServedClient) -> None:
    texts = ["a cat on a mat", "a cat on the mat", "interest rates", " "]
    jobs = [client.submit("vector", {"text": text}) for text in texts]
    cat, other, rates = (job.result(timeout="20s") for job in jobs[:3])
    with pytest.raises(JobFailed, match="there is no text"):
        jobs[3].result(timeout="20s")
    assert sum(a * b for a, b in zip(cat, other, strict=True)) > 0.7
    assert abs(sum(a * b for a, b in zip(cat, rates, strict=True))) < 0.4

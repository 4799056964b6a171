"""Effect: which job an argument names, asked of a scripted server."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from runner.cli.arguments import CommandUsageError
from runner.cli.job_ids import creation_window_ms, resolve_job_id
from runner.client import Client
from runner.errors import NotFound
from tests.runner.client.fake_server import ID, CannedReply, RecordedRequest, fake_server, job

OTHER = ID[:-1] + "8"
LISTS = ("GET", "/v1/jobs")


def _page(*ids: str) -> CannedReply:
    return CannedReply(200, {"data": [job(id=each) for each in ids], "next_cursor": None})


def _resolve(argument: str, page: CannedReply) -> tuple[str, list[RecordedRequest]]:
    with fake_server({LISTS: page}) as server, Client(server.url) as client:
        return resolve_job_id(client, argument), server.asked


def _query(request: RecordedRequest) -> dict[str, Any]:
    return parse_qs(urlsplit(request.path).query)


def test_a_whole_id_needs_no_request() -> None:
    assert _resolve(ID.upper(), _page()) == (ID, [])


def test_last_is_the_newest_job() -> None:
    found, asked = _resolve("@last", _page(ID))
    assert found == ID and _query(asked[0])["limit"] == ["1"]


def test_a_prefix_is_searched_among_the_jobs_of_its_time() -> None:
    found, asked = _resolve(ID[:13], _page(ID, "0f" + ID[2:]))
    assert found == ID
    # The first 12 digits are the time: 2023-06-30 03:34:18.518.
    assert _query(asked[0])["created_after"] == ["2023-06-30T03:34:16.518Z"]
    assert _query(asked[0])["created_before"] == ["2023-06-30T03:34:20.518Z"]


@pytest.mark.parametrize(
    ("prefix", "first", "last"),
    [("0189", "018900000000", "0189ffffffff"), ("01890a5d-ac96-774b", "01890a5dac96", "01890a5dac96")],
)
def test_a_prefix_covers_the_times_of_its_ids(prefix: str, first: str, last: str) -> None:
    assert creation_window_ms(prefix) == (int(first, 16), int(last, 16))


@pytest.mark.parametrize("prefix", ["ffff", "0000"])
def test_a_prefix_of_no_time_at_which_there_were_jobs_is_a_valid_question(prefix: str) -> None:
    with pytest.raises(NotFound, match=prefix):
        _resolve(prefix, _page())


def test_an_ambiguous_prefix_names_two_of_the_jobs() -> None:
    with pytest.raises(CommandUsageError, match=f"{ID} and {OTHER}"):
        _resolve(ID[:20], _page(ID, OTHER))


@pytest.mark.parametrize("argument", ["xyz", "018", "01-8", "", "--", "@first", "0189 "])
def test_what_is_no_id_is_refused_without_a_request(argument: str) -> None:
    with pytest.raises(CommandUsageError, match="not a job id"):
        _resolve(argument, _page(ID))


def test_last_of_no_jobs_is_not_found() -> None:
    with pytest.raises(NotFound, match="no jobs yet"):
        _resolve("@last", _page())

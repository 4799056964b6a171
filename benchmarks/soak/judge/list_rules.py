"""Pure: what must hold of the lists of jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

from benchmarks.soak.judge.history import NEVER, Call, History


def judge_lists(history: History) -> Iterator[tuple[str, str]]:
    """Each broken rule as its job and the words. States are judged together with those of other answers."""
    yield from _judge_tags(history)
    by_tag = {call.tag: call for call in history.submits}
    for call in history.lists:
        if call.is_done:
            yield from _judge_list(history, by_tag, call)


def _judge_list(history: History, by_tag: dict[str, Call], call: Call) -> Iterator[tuple[str, str]]:
    """Jobs stand in the order of their acceptance, and none is missing."""
    query = parse_qs(urlsplit(call.path).query)
    # Of what nobody has submitted the rule for tags tells.
    rows = [view for view in call.views if view.tag in by_tag]
    is_upwards = query.get("order") == ["asc"]
    for first, second in pairwise(rows):
        older, newer = (first, second) if is_upwards else (second, first)
        if by_tag[older.tag].start > _accepted_by(by_tag[newer.tag]):
            yield older.job, f"list: it is newer than {newer.job} and not listed so at {call.start:.3f}"
    wanted: list[Call] = []
    if "tag" in query:
        wanted = [by_tag[tag] for tag in query["tag"] if tag in by_tag]
    elif set(query) <= {"limit"} and rows:
        # The newest ones: a job that is newer than the last of them is on the page.
        last = _accepted_by(by_tag[rows[-1].tag])
        wanted = [submit for submit in history.submits if submit.start > last]
    there = {view.job for view in call.views}
    for submit in wanted:
        if submit.job and submit.job not in there and _must_be_there(history, submit, call):
            yield submit.job, f"list: it is missing in {call.path} at {call.start:.3f}"


def _accepted_by(submit: Call) -> float:
    """When a job was accepted at the latest; one without an answer may have been accepted later."""
    return submit.end if submit.is_done else NEVER


def _must_be_there(history: History, submit: Call, call: Call) -> bool:
    is_accepted = submit.is_done and submit.end < call.start
    return is_accepted and call.end < history.job(submit.job).deleted_from


def _judge_tags(history: History) -> Iterator[tuple[str, str]]:
    """Each job is of one submit, and each submit of one job at most."""
    submitted = {call.tag for call in history.submits}
    jobs: defaultdict[str, set[str]] = defaultdict(set)
    for job in history.jobs.values():
        tags = {view.tag for _, view in job.views} | ({job.submit.tag} if job.submit is not None else set())
        for tag in tags:
            jobs[tag].add(job.job)
            if tag not in submitted:
                yield job.job, f"stranger: nobody has submitted {tag!r}"
        if len(tags) > 1:
            yield job.job, f"stranger: it was seen with the tags {sorted(tags)}"
    for tag, ids in jobs.items():
        if len(ids) > 1:
            yield min(ids), f"twice: the one submit {tag!r} became the jobs {sorted(ids)}"

"""Pure: translates a JobQuery to SQL on the tables of the SQLite store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import msgspec

from runner.jobs.job_query import JobQuery
from runner.stores.damaged_row import DAMAGED

#: A value that SQLite stores.
SqlValue = str | int | float | bytes | None

#: A numeric part of an input's path may be an index or a key, so that every numeric part doubles the number
#: of readings of the path. The first few are read in both ways, the others as indices.
_AMBIGUOUS_PARTS_MAX = 3
#: A longer number is no index: no list is that long, and SQLite counts indices modulo 2**32.
_INDEX_DIGITS_MAX = 9


def select_numbers(query: JobQuery, excluded: Sequence[int] = ()) -> tuple[str, list[SqlValue]]:
    """Return SQL and its values that select the `n` of matching jobs: the first `query.limit` in its order.

    Left out are rows that are set aside, and the numbers in `excluded`, which can't be read.

    There is one SELECT per state, joined by UNION ALL. Each walks the index (state, n) in order and stops at
    the limit, whereas `state IN (...)` would collect all jobs of these states before it sorts them.
    """
    order = "DESC" if query.order == "desc" else "ASC"
    where, values = _conditions(query)
    if excluded:
        where.append("n NOT IN (SELECT value FROM json_each(?))")
        values.append(f"[{','.join(map(str, excluded))}]")
    table = "jobs"
    if query.finished_after is not None or query.finished_before is not None:
        # SQLite's planner would walk all jobs by n, as it can't know that few ended within the bounds.
        table = "jobs INDEXED BY jobs_finished"
    selects: list[str] = []
    bound: list[SqlValue] = []
    for state in _state_alternatives(query.states):
        conditions = [f"state != '{DAMAGED}'" if state is None else "state = ?", *where]
        selects.append(f"SELECT n FROM {table} WHERE {' AND '.join(conditions)}")
        bound += values if state is None else [state, *values]
    if not selects:
        return "SELECT n FROM jobs WHERE 0", []
    return f"{' UNION ALL '.join(selects)} ORDER BY n {order} LIMIT ?", [*bound, query.limit]


def _state_alternatives(states: list[str] | None) -> Sequence[str | None]:
    return [None] if states is None else sorted(set(states))


def _conditions(query: JobQuery) -> tuple[list[str], list[SqlValue]]:
    """Return the conditions of a query, all but that on the state, and their values in order."""
    where: list[str] = []
    values: list[SqlValue] = []
    lists = (
        ("id", query.ids),
        ("reason", query.reasons),
        ("handler", query.handlers),
        ("queue", query.queues),
        ("tenant", query.tenants),
    )
    for column, wanted in lists:
        if wanted is not None:
            where.append(f"{column} IN ({_placeholders(wanted)})")
            values += wanted
    if query.tags is not None:
        where.append(f"n IN (SELECT tags.n FROM tags WHERE tag IN ({_placeholders(query.tags)}))")
        values += query.tags
    bounds = (
        ("created_at >", query.created_after),
        ("created_at <", query.created_before),
        ("finished_at >", query.finished_after),
        ("finished_at <", query.finished_before),
        ("n <" if query.order == "desc" else "n >", query.cursor),
    )
    for comparison, bound in bounds:
        if bound is not None:
            where.append(f"{comparison} ?")
            values.append(bound)
    input_where, more = input_conditions(query)
    return where + input_where, values + more


def input_conditions(query: JobQuery) -> tuple[list[str], list[SqlValue]]:
    """Return the conditions of a query on the inputs of jobs, and their values in order."""
    where: list[str] = []
    values: list[SqlValue] = []
    for path, wanted_json in query.inputs or ():
        condition, more = _input_condition(path, msgspec.json.decode(wanted_json))
        where.append(condition)
        values += more
    return where, values


def _input_condition(path: str, wanted: object) -> tuple[str, list[SqlValue]]:
    """Return the condition that the value at a path of the input equals `wanted`, and its values.

    Types are strict (`1` is not `true`), and lists and objects never match.
    """
    paths = _json_paths(path)
    if isinstance(wanted, list | dict) or not paths:
        return "0", []
    if isinstance(wanted, bool) or wanted is None:
        test, extra = "json_type(body, ?) = ?", [{True: "true", False: "false", None: "null"}[wanted]]
    elif isinstance(wanted, str):
        test, extra = "json_type(body, ?) = 'text' AND json_extract(body, ?) = ?", [wanted]
    else:
        test = "json_type(body, ?) IN ('integer', 'real') AND json_extract(body, ?) = ?"
        extra = [wanted]  # type: ignore[list-item]
    values: list[SqlValue] = []
    for json_path in paths:
        values += [json_path] * (test.count("?") - 1)
        values += extra
    tests = " OR ".join(f"({test})" for _ in paths)
    # CASE, as JSON functions fail the whole statement at an input that is no JSON.
    condition = f"CASE WHEN json_valid(body) THEN ({tests}) ELSE 0 END"
    return f"EXISTS (SELECT 1 FROM inputs WHERE inputs.n = jobs.n AND {condition})", values


def _json_paths(dotted: str) -> list[str]:
    """Return SQLite's notations of a dotted path, one for each reading; none if SQLite can't quote it."""
    if '"' in dotted or "\\" in dotted:
        return []
    ways: list[tuple[str, ...]] = []
    numeric = 0
    for part in dotted.split("."):
        if _is_index(part):
            numeric += 1
            index = f"[{int(part)}]"
            ways.append((index, f'."{part}"') if numeric <= _AMBIGUOUS_PARTS_MAX else (index,))
        else:
            ways.append((f'."{part}"',))
    return ["$" + "".join(parts) for parts in product(*ways)]


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part.lstrip("0")) <= _INDEX_DIGITS_MAX


def _placeholders(wanted: Sequence[object]) -> str:
    return ", ".join("?" * len(wanted))

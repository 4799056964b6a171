"""Effect: reads jobs from a CSV file; what is wrong is named with its line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.simulation.job import GIB, PRIORITY, InvalidJob, JobClassCache, SimulatedJob
from benchmarks.simulation.limits import round_limit
from gpu.job_class import JobClass

REQUIRED = ("submit_s", "handler", "run_s")
#: Optional columns with what an absent or empty cell means.
DEFAULTS = {
    "load_s": "0",
    "vram_gib": "0",
    "gpus": "1",
    "priority": str(PRIORITY),
    "tenant": "",
    "timeout_s": "",
}

#: (submit_s, run_s, load_s, class)
_Row = tuple[float, float, float, JobClass]


def read(path: Path) -> list[SimulatedJob]:
    """The jobs of a file, in order of submission; equal times keep the order of the file.

    Raises:
        BadJob: the file has no such columns, no jobs, or a row that makes no sense.
        OSError: it can't be read.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            return parse(file, str(path))
        except UnicodeDecodeError as error:
            raise InvalidJob(f"{path} is not UTF-8 text: {error}") from None


def parse(lines: Iterable[str], name: str = "the file") -> list[SimulatedJob]:
    """The jobs of CSV text whose first line names the columns. Raises BadJob as `read` does."""
    reader = csv.reader(lines, strict=True)
    classes = JobClassCache()
    rows: list[_Row] = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(header, name)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"{name}, line {reader.line_num}"
            if len(cells) != len(header):
                raise InvalidJob(f"{where}: {len(cells)} cells where the header has {len(header)}")
            given = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
            rows.append(_row({**DEFAULTS, **{k: cell for k, cell in given.items() if cell}}, classes, where))
    except csv.Error as error:
        raise InvalidJob(f"{name}, line {reader.line_num}: {error}") from None
    if not rows:
        raise InvalidJob(f"{name} has no jobs: put one on each line below the header")
    rows.sort(key=lambda row: row[0])
    return [SimulatedJob(number, *row) for number, row in enumerate(rows, 1)]


def _check_header(header: list[str], name: str) -> None:
    missing = [column for column in REQUIRED if column not in header]
    unknown = [column for column in header if column not in (*REQUIRED, *DEFAULTS)]
    twice = sorted({column for column in header if header.count(column) > 1})
    for what, columns in (("lacks", missing), ("has the unknown", unknown), ("names twice", twice)):
        if columns:
            raise InvalidJob(
                f"{name}, line 1: the header {what} {', '.join(map(repr, columns))}; required are "
                f"{', '.join(REQUIRED)}, optional {', '.join(DEFAULTS)}"
            )


def _row(cells: Mapping[str, str], classes: JobClassCache, where: str) -> _Row:
    if "handler" not in cells:
        raise InvalidJob(f"{where}: handler is empty")
    need_bytes = int(_number(cells, "vram_gib", where) * GIB)
    gpus = _whole(cells, "gpus", where)
    if gpus < 1:
        raise InvalidJob(f"{where}: gpus is {gpus}; a job takes at least 1 device")
    run_s, limit_s = _number(cells, "run_s", where), math.inf
    if cells["timeout_s"]:
        limit_s = round_limit(_number(cells, "timeout_s", where))
        if limit_s < run_s:
            raise InvalidJob(f"{where}: timeout_s is less than run_s, and no job runs longer than it may")
    priority, tenant = _whole(cells, "priority", where), cells["tenant"]
    job_class = classes.get(cells["handler"], need_bytes, gpus, priority, tenant, limit_s)
    return (
        _number(cells, "submit_s", where),
        run_s,
        _number(cells, "load_s", where),
        job_class,
    )


def _number(cells: Mapping[str, str], column: str, where: str) -> float:
    text = cells.get(column, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InvalidJob(f"{where}: {column} is {text!r}; it takes a number from 0 on")
    return value


def _whole(cells: Mapping[str, str], column: str, where: str) -> int:
    try:
        return int(cells[column])
    except ValueError:
        raise InvalidJob(f"{where}: {column} is {cells[column]!r}; it takes a whole number") from None

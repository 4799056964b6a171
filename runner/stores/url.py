"""Pure: which store a URL names."""

from __future__ import annotations

from runner.errors import RefusedStart

_SQLITE = "sqlite:///"


def sqlite_path(url: str) -> str | None:
    """The path in a `sqlite:///PATH` URL (relative unless PATH begins with a slash), None for `memory:`.

    Raises:
        RefusedStart: a URL of neither form.
    """
    if url == "memory:":
        return None
    path = url.removeprefix(_SQLITE)
    if path == url or not path:
        raise RefusedStart(
            f"{url!r} names no store that is supported; use sqlite:///PATH "
            "(sqlite:////an/absolute/path has four slashes) or memory:"
        )
    return path

"""Pure: parses the URL of a store."""

from __future__ import annotations

from runner.errors import RefusedStart

_SQLITE = "sqlite:///"


def sqlite_path(url: str) -> str | None:
    """Return the path in a `sqlite:///PATH` URL (relative without a leading slash), None for `memory:`.

    Raises:
        RefusedStart: the URL has neither form.
    """
    if url == "memory:":
        return None
    path = url.removeprefix(_SQLITE)
    if path == url or not path:
        raise RefusedStart(
            f"{url!r} is not the URL of a supported store; use sqlite:///PATH "
            "(sqlite:////an/absolute/path has four slashes) or memory:"
        )
    return path

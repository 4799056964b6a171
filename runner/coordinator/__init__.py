"""Effect: the coordinator: decides which job runs where, and is the only writer of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.coordinator.process import serve

__all__ = ["serve"]


def __getattr__(name: str) -> Any:
    if name == "serve":
        from runner.coordinator.process import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

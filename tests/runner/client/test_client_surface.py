"""Pure: both clients have the same methods with the same signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, get_overloads

import pytest

from runner.client import AsyncClient, AsyncJobHandle, Client, JobHandle

#: Methods of protocols that asyncio names differently.
SYNC_NAMES = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}


def _methods(owner: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, method in vars(owner).items():
        is_public = not name.startswith("_") or name.startswith("__")
        if is_public and inspect.isfunction(method):
            yield SYNC_NAMES.get(name, name), method


def _signatures(method: Callable[..., Any]) -> list[str]:
    """Return the signatures of a method and its overloads, in the words of the synchronous client."""
    texts = [str(inspect.signature(each)) for each in (*get_overloads(method), method)]
    return [re.sub(r"\bAsync(Client|JobHandle|Iterator)\b", r"\1", text) for text in texts]


@pytest.mark.parametrize(
    ("asynchronous", "synchronous"), [(AsyncClient, Client), (AsyncJobHandle, JobHandle)]
)
def test_both_clients_have_the_same_surface(asynchronous: type, synchronous: type) -> None:
    surfaces = [
        {name: _signatures(method) for name, method in _methods(owner)}
        for owner in (asynchronous, synchronous)
    ]
    assert surfaces[0] == surfaces[1]
    assert len(surfaces[0]["__init__"]) == 1

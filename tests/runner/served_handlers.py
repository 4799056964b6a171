"""Pure: handlers that a real server runs in tests."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pydantic import BaseModel, Field

from runner import Context, handler


class Steps(BaseModel):
    count: int = Field(3, ge=1)
    pause_s: float = 0.0


class Report(BaseModel):
    steps: int


@handler("echo")
def echo(data: object) -> object:
    return data


@handler("walk", gpus=0)
class Walk:
    def run(self, data: Steps, ctx: Context) -> Report:
        for step in range(data.count):
            ctx.progress(step + 1, data.count, message=f"step {step + 1}")
            print("did", step + 1)
            time.sleep(data.pause_s)
        return Report(steps=data.count)


@handler("spell")
def spell(data: dict[str, str]) -> Iterator[str]:
    yield from data["word"]


@handler("boom")
def boom(data: object) -> None:
    raise ValueError("no luck")

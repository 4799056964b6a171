"""Effect: the smallest handlers there are: one gives back what it got, one counts live."""

import time

from pydantic import BaseModel, Field

from runner import Context, handler


class Count(BaseModel):
    to: int = Field(10, ge=1, le=1000)
    pause_s: float = Field(0.2, ge=0, le=10)


@handler("echo")
def echo(data: dict[str, object]) -> dict[str, object]:
    """Give the input back."""
    return data


@handler("count")
def count(data: Count, ctx: Context) -> dict[str, int]:
    """Count up with a progress bar."""
    for number in range(1, data.to + 1):
        time.sleep(data.pause_s)
        ctx.check_cancelled()
        ctx.progress(number, data.to, message=f"at {number}")
    return {"counted": data.to}

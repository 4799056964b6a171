"""Pure: what all shapes of requests and answers have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestModel(BaseModel):
    """A request: what it does not know it refuses."""

    model_config = ConfigDict(extra="forbid")


class ResponseModel(BaseModel):
    """An answer: later versions may add to it."""

    model_config = ConfigDict(extra="allow")

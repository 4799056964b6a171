"""Pure: base classes of all models of requests and responses."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestModel(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class ResponseModel(BaseModel):
    """A response; later versions may add fields."""

    model_config = ConfigDict(extra="allow")

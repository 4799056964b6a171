"""Effect: a small web app of a user: it hands jobs to runner and passes what happens on to the browser.

The browser talks to this app alone, so runner stays on loopback and no CORS is needed:

    runner serve --handlers examples/train_digits.py
    python examples/app.py          # then open http://127.0.0.1:8000
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from runner import AsyncClient, RunnerError

PAGE = Path(__file__).with_name("watch.html")


class Wish(BaseModel):
    """What a visitor may choose; the rest is this app's own business."""

    epochs: int = Field(30, ge=1, le=200)
    learning_rate: float = Field(0.002, gt=0, le=1)
    hidden: int = Field(64, ge=4, le=512)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # The server is RUNNER_URL, else this machine's.
    async with AsyncClient() as app.state.runner:
        yield


app = FastAPI(title="Watch a network learn", lifespan=lifespan)


def runner_of(request: Request) -> AsyncClient:
    client: AsyncClient = request.app.state.runner
    return client


@app.exception_handler(RunnerError)
async def explain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RunnerError)
    return JSONResponse({"code": error.code, "message": error.message}, error.status)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE, media_type="text/html")


@app.post("/trainings", status_code=202)
async def begin(wish: Wish, request: Request) -> dict[str, str]:
    handle = await runner_of(request).submit("train_digits", wish)
    return {"id": handle.id}


@app.get("/trainings/{job_id}/events")
async def events(
    job_id: str, request: Request, last_event_id: Annotated[int | None, Header()] = None
) -> EventSourceResponse:
    """A browser that was cut off sends the id of its last event and goes on behind it."""
    client = runner_of(request)
    await client.get(job_id)  # An unknown id is a 404 now, not a broken stream later.

    async def passed_on() -> AsyncIterator[ServerSentEvent]:
        async for event in client.events(job_id, after=last_event_id):
            number = None if event.seq is None else str(event.seq)
            yield ServerSentEvent(json.dumps(event.data), event=event.type, id=number)

    return EventSourceResponse(passed_on())


@app.post("/trainings/{job_id}/cancel", status_code=202)
async def cancel(job_id: str, request: Request) -> dict[str, Any]:
    job = await runner_of(request).cancel(job_id, "cancelled on the page")
    return {"state": job.state, "reason": job.reason}


@app.get("/trainings/{job_id}/confusion_matrix.png")
async def picture(job_id: str, request: Request) -> Response:
    data = await runner_of(request).file(job_id, "confusion_matrix.png")
    return Response(data, media_type="image/png")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), log_level="warning")

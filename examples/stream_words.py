"""Effect: streams a text word by word, as a language model would."""

import time
from collections.abc import Iterator

from pydantic import BaseModel, Field

from runner import Context, handler

TEXT = (
    "Everything that a handler yields is sent at once, as an output event of its own; a client opening the "
    "stream late gets every word from the first one, and one that lost its connection resumes after the last."
)


class Words(BaseModel):
    text: str = Field(TEXT, min_length=1, max_length=100_000)
    pause_s: float = Field(0.08, ge=0, le=5, description="Rest between two words")


@handler("stream_words")
def stream_words(data: Words, ctx: Context) -> Iterator[str]:
    """Yield the words one by one; the job's output is their list."""
    for word in data.text.split():
        ctx.check_cancelled()
        yield word + " "
        time.sleep(data.pause_s)

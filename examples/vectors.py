"""Effect: a handler that takes batches: a vector for a text, for many texts in one call."""

from __future__ import annotations

import math
from zlib import crc32

from pydantic import BaseModel, Field

from runner import Batch, Context, handler

#: Numbers of a vector.
WIDTH = 64


class Text(BaseModel):
    text: str = Field(max_length=10_000)


@handler("vector", gpus=0, batch=Batch(max=32, wait="10ms"))
class Vector:
    """Texts that share groups of three letters get vectors that point the same way. A real model stands here
    in practice: one call for all texts of a batch."""

    def load(self) -> None:
        self.places: dict[str, tuple[int, float]] = {}

    def run(self, data: list[Text], ctx: Context) -> list[list[float] | Exception]:
        ctx.progress(0, 1, message=f"{len(data)} texts at once")
        outcomes: list[list[float] | Exception] = []
        for one in data:
            # What is wrong with one text fails that job alone.
            outcomes.append(self.vector(one.text) if one.text.strip() else ValueError("there is no text"))
        return outcomes

    def vector(self, text: str) -> list[float]:
        """Of length 1."""
        padded = f"  {text.lower()}  "
        vector = [0.0] * WIDTH
        for at in range(len(padded) - 2):
            place, sign = self.place(padded[at : at + 3])
            vector[place] += sign
        length = math.sqrt(sum(number * number for number in vector)) or 1.0
        return [round(number / length, 6) for number in vector]

    def place(self, letters: str) -> tuple[int, float]:
        """Where three letters count in a vector, and whether for or against."""
        if letters not in self.places:
            number = crc32(letters.encode())
            self.places[letters] = number % WIDTH, 1.0 if number & 0x80000000 else -1.0
        return self.places[letters]

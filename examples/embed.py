"""Effect: turns texts into vectors with a real sentence model, which is loaded once and stays warm.

Any model that sentence-transformers can read will do; `EMBED_MODEL` names its folder, nothing is downloaded:

    pip install 'PATH/TO/THIS/CHECKOUT[embed]'
    EMBED_MODEL=/models/all-MiniLM-L6-v2 runner serve --handlers examples/embed.py
    runner run embed texts:='["a cat on a mat", "a kitten on a rug", "interest rates"]' nearest:=true
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from runner import Context, handler

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class Texts(BaseModel):
    texts: list[Text] = Field(min_length=1, max_length=10_000)
    batch_size: int = Field(32, ge=1, le=512, description="Texts at once on the device")
    nearest: bool = Field(False, description="Also find the most similar other text of each")
    as_file: bool = Field(False, description="Vectors as a .npy file: an output holds about 2,000 as JSON")


class Nearest(BaseModel):
    """The most similar other text: its index and the cosine of the angle between the two."""

    index: int
    similarity: float


class Embeddings(BaseModel):
    model: str
    dimension: int
    count: int
    #: Each of length 1, so that a dot product is a similarity. None where they are in `file`.
    vectors: list[list[float]] | None = None
    nearest: list[Nearest | None] | None = None
    #: A reference to `vectors.npy` [count, dimension] float32.
    file: dict[str, object] | None = None


# Enough for models of some 100 million weights; the operator sets another by [handlers.embed] vram = "8GiB".
# The grace lets a cancelled job finish its batch: a job stopped within one loses the loaded model.
@handler("embed", vram="2GiB", timeout="30m", keep_alive="10m", grace="5s")
class Embed:
    """Turn texts into vectors whose dot products are similarities."""

    #: The variable that names the model's folder; a subclass may have one of its own.
    variable = "EMBED_MODEL"

    def load(self, ctx: Context) -> None:
        folder = model_folder(self.variable)
        self.model = read_model(folder, ctx.device)
        self.name = folder.name

    def run(self, data: Texts, ctx: Context) -> Embeddings:
        vectors = self.embed(data, ctx)
        output = Embeddings(model=self.name, dimension=vectors.shape[1], count=len(vectors))
        if data.nearest:
            output.nearest = nearest(vectors)
        if data.as_file:
            output.file = save(vectors, ctx)
        else:
            # Six digits lose less than float16 would, and halve what travels.
            output.vectors = vectors.double().round(decimals=6).tolist()
        return output

    def embed(self, data: Texts, ctx: Context) -> Tensor:
        """The vectors [count, dimension] float32, batch by batch; a cancel ends it between two."""
        import torch

        rows = []
        for at in range(0, len(data.texts), data.batch_size):
            ctx.check_cancelled()
            batch = data.texts[at : at + data.batch_size]
            vectors = self.model.encode(
                batch, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
            )
            rows.append(vectors.float().cpu())
            ctx.progress(at + len(batch), len(data.texts), message="texts")
        return torch.cat(rows)


def model_folder(variable: str) -> Path:
    """The folder that the variable names.

    Raises:
        RuntimeError: it names none.
    """
    text = os.environ.get(variable)
    if not text:
        raise RuntimeError(
            f"{variable} is not set: start the server with {variable}=FOLDER, the folder of a "
            "sentence-transformers model"
        )
    folder = Path(text).expanduser().resolve()
    # The library would take a folder that isn't there for a name on a model hub and try to download it.
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise RuntimeError(
            f"{variable}={text} is no folder of a model: {folder} holds neither config.json nor modules.json"
        )
    return folder


def read_model(folder: Path, device: str) -> SentenceTransformer:
    """The model on the device.

    Raises:
        RuntimeError: the library is not installed.
    """
    # Its bars for each file would only fill the job's log.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        # Here and not above: it takes seconds, and a list of handlers needs it not.
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise RuntimeError(
            f"{error.name} is missing in the server's environment: "
            f"{sys.executable} -m pip install sentence-transformers"
        ) from error
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("this build of torch has no CUDA: embedding on the CPU")
        device = "cpu"
    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    print(f"loaded {folder.name} on {device}")
    return model


def nearest(vectors: Tensor) -> list[Nearest | None]:
    """For each vector [count, dimension] of length 1 the nearest other one; None where it is alone."""
    if len(vectors) == 1:
        return [None]
    found: list[Nearest | None] = []
    for index, vector in enumerate(vectors):
        similarities = vectors @ vector
        similarities[index] = -2
        best = int(similarities.argmax())
        found.append(Nearest(index=best, similarity=round(similarities[best].item(), 4)))
    return found


def save(vectors: Tensor, ctx: Context) -> dict[str, object]:
    """Keep the vectors as a file that `numpy.load` reads; its reference."""
    import numpy

    path = ctx.tmpdir / "vectors.npy"
    numpy.save(path, vectors.numpy())
    return ctx.save_file(path.name, path)

"""Effect: trains a small network on real handwritten digits and shows it live.

The data are the 1,797 digits (8 x 8 pixels) that come with scikit-learn: nothing is downloaded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from pydantic import BaseModel, Field
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from runner import Context, handler

BATCH = 32


class Training(BaseModel):
    epochs: int = Field(30, ge=1, le=1000, description="Passes over the training set")
    learning_rate: float = Field(0.002, gt=0, le=1, description="Of the first epoch; it falls to 0")
    hidden: int = Field(64, ge=4, le=1024, description="Units of the layer before the last")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Equal seeds give equal networks on one device")


@dataclass(frozen=True, slots=True)
class Digits:
    """Images [n, 1, 8, 8] float32 in 0..1 and labels [n] int64, on the device."""

    images: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        return len(self.labels)


def split(device: str, seed: int) -> tuple[Digits, Digits]:
    """The training set and a quarter that is kept apart to judge the result."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=0.25, random_state=seed, stratify=labels)
    x_train, x_test, y_train, y_test = (torch.as_tensor(part).to(device) for part in parts)
    return Digits(_image(x_train), y_train), Digits(_image(x_test), y_test)


def build(hidden: int) -> nn.Sequential:
    """Two convolutions and two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * 4 * 4, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


@handler("train_digits", vram="1GiB", timeout="15m", keep_alive="1m")
def train_digits(data: Training, ctx: Context) -> dict[str, object]:
    """Train a digit reader; gives its accuracy and a picture of what it confuses with what."""
    device = usable(ctx.device)
    # Layers this small gain nothing from more threads, and threads that wait for each other on a busy
    # machine take ten times as long.
    torch.set_num_threads(1)
    torch.manual_seed(data.seed)
    train, test = split(device, data.seed)
    print(f"{train.size} digits to learn from, {test.size} to judge by, on {device}")
    net = build(data.hidden).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=data.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, data.epochs)

    loss = accuracy = 0.0
    for epoch in range(1, data.epochs + 1):
        loss = train_epoch(net, optimiser, train, ctx)
        schedule.step()
        accuracy = (predict(net, test) == test.labels).double().mean().item()
        ctx.metric("loss", loss)
        ctx.metric("accuracy", accuracy)
        figures = {"loss": round(loss, 4), "accuracy": round(accuracy, 4)}
        ctx.progress(epoch, data.epochs, message=f"epoch {epoch}", **figures)

    picture = draw(confusion(predict(net, test), test.labels), accuracy)
    return {
        "accuracy": round(accuracy, 4),
        "loss": round(loss, 4),
        "epochs": data.epochs,
        "confusion_matrix": ctx.save_file("confusion_matrix.png", picture, content_type="image/png"),
    }


def usable(device: str) -> str:
    """The promised device, or the CPU (said aloud) where the installed torch was built without CUDA."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("this build of torch has no CUDA: training on the CPU")
        return "cpu"
    return device


def train_epoch(net: nn.Module, optimiser: torch.optim.Optimizer, data: Digits, ctx: Context) -> float:
    """One pass in random order; the mean loss. A cancel ends it between two batches."""
    net.train()
    total = 0.0
    order = torch.randperm(data.size).to(data.labels.device)
    for at in range(0, data.size, BATCH):
        ctx.check_cancelled()
        chosen = order[at : at + BATCH]
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(data.images[chosen]), data.labels[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item() * len(chosen)
    return total / data.size


@torch.no_grad()
def predict(net: nn.Module, data: Digits) -> Tensor:
    """The most likely digit of each image [n]."""
    net.eval()
    best: Tensor = net(data.images).argmax(dim=1)
    return best


def confusion(predicted: Tensor, labels: Tensor) -> Tensor:
    """How often digit i was read as digit j [10, 10] int64."""
    return torch.bincount(labels * 10 + predicted, minlength=100).reshape(10, 10).cpu()


def draw(matrix: Tensor, accuracy: float) -> bytes:
    """The matrix as a PNG: right answers in blue, mistakes in red, so that a single mistake stands out."""
    figure = Figure(figsize=(4.6, 4.7), dpi=170, layout="constrained")
    axes = figure.subplots()
    axes.imshow(_colours(matrix).numpy())
    for i, j in matrix.nonzero().tolist():
        axes.text(j, i, str(int(matrix[i, j])), ha="center", va="center", color="white", fontsize=11)
    axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="is")
    axes.set_title(f"{accuracy:.1%} of {int(matrix.sum())} unseen digits read right")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _colours(matrix: Tensor) -> Tensor:
    """One colour per cell [10, 10, 3] float64 in 0..1, the deeper the more often."""
    paper = torch.tensor([0.97, 0.98, 0.99], dtype=torch.float64)
    blue = torch.tensor([0.10, 0.32, 0.62], dtype=torch.float64)
    red = torch.tensor([0.84, 0.18, 0.16], dtype=torch.float64)
    is_right = torch.eye(10, dtype=torch.bool)
    most = torch.where(is_right, matrix.diagonal().max(), matrix[~is_right].max()).clamp(min=1)
    depth = torch.where(matrix > 0, 0.45 + 0.55 * matrix.double() / most, 0.0).unsqueeze(-1)
    ink = torch.where(is_right.unsqueeze(-1), blue, red)
    return paper + depth * (ink - paper)


def _image(rows: Tensor) -> Tensor:
    """Rows [n, 64] of 0..16 as images [n, 1, 8, 8] of 0..1."""
    return (rows.float() / 16).reshape(-1, 1, 8, 8)

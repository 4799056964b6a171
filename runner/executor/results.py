"""Effect: encodes what a handler returns and streams as JSON text, and saves the files in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.formats import foreign_types, strict_json
from runner.formats.strict_json import NotSerialisable
from runner.handlers import output_types

if TYPE_CHECKING:
    from pathlib import Path

    from runner.executor.active_run import ActiveRun

#: First bytes of common formats, the ending of such a file's name and its content type.
_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png", "image/png"),
    (b"\xff\xd8\xff", "jpg", "image/jpeg"),
    (b"GIF8", "gif", "image/gif"),
    (b"%PDF-", "pdf", "application/pdf"),
    (b"PK\x03\x04", "zip", "application/zip"),
    (b"ID3", "mp3", "audio/mpeg"),
    (b"OggS", "ogg", "audio/ogg"),
    (b"fLaC", "flac", "audio/flac"),
)
#: Formats inside a container: bytes 0 to 4, bytes 8 to 12, ending, content type.
_RIFF_FORMATS = ((b"WAVE", "wav", "audio/wav"), (b"WEBP", "webp", "image/webp"))


class ResultEncoder:
    """Encodes the values of one handler as its return annotation says."""

    def __init__(self, function: Callable[..., Any], *, is_batched: bool, is_generator: bool) -> None:
        """Read the annotation of the function.

        `is_batched`: one outcome of a batch is encoded at a time.

        Raises:
            TypeError: pydantic can't serialise the annotation.
        """
        try:
            types = output_types.read_output_types(function, is_batched=is_batched, is_generator=is_generator)
        except TypeError:
            # It names a type that exists for type checkers only.
            types = output_types.OutputTypes(Any)
        self._returned = output_types.make_serializer(types.returned)
        self._yielded = output_types.make_serializer(types.yielded)

    def encode_returned(self, run: ActiveRun, value: Any) -> bytes:
        """Return the JSON text of a returned value.

        Raises:
            NotSerialisable: the value is not JSON.
            OSError: the disk refused a file.
        """
        return strict_json.encode(value, partial(save_result, run), self._returned)

    def encode_yielded(self, run: ActiveRun, value: Any) -> bytes:
        """Return the JSON text of a chunk that a generator yielded; raises as `encode_returned`."""
        return strict_json.encode(value, partial(save_result, run), self._yielded)


def encode_value(run: ActiveRun, value: Any) -> bytes:
    """Return the JSON text of a value without an annotation, such as a chunk of `ctx.output`.

    Raises:
        NotSerialisable: the value is not JSON.
        OSError: the disk refused a file.
    """
    return strict_json.encode(value, partial(save_result, run))


def save_result(run: ActiveRun, value: Any) -> dict[str, Any]:
    """Save an image, a figure, a path or bytes with the job; return the reference that takes its place.

    Raises:
        NotSerialisable: a path that is no regular file in `ctx.tmpdir`, or an image without a file format.
        RuntimeError: the value belongs to a batch as a whole.
        OSError: the disk refused the write.
    """
    from runner.executor import files

    owner = run.file_owner()
    if foreign_types.is_image(value):
        data, ending, content_type = _encode_image(value)
    elif foreign_types.is_figure(value):
        data, ending, content_type = _encode_figure(value), "png", "image/png"
    elif isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        ending, content_type = _recognise(data)
    else:
        shared = None if owner.batch_folder is None else owner.batch_folder()
        _check_path(value, [folder for folder in (owner.tmpdir, shared) if folder is not None])
        return files.save_file(owner, files.free_name(owner, value.name), value, None)
    name = files.free_name(owner, f"output.{ending}")
    return files.save_file(owner, name, data, content_type)


def _check_path(path: Path, folders: list[Path]) -> None:
    """Check that a returned path is a regular file in one of the attempt's private folders.

    Raises:
        NotSerialisable: it is not.
    """
    why = f"{os.fspath(path)!r} is no file in ctx.tmpdir; write it there, or save it by ctx.save_file"
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError, AttributeError):
        # A PurePath of another system can't be resolved.
        raise NotSerialisable(why) from None
    is_inside = any(found.is_relative_to(folder.resolve()) for folder in folders)
    if not (is_inside and found.is_file()):  # guard: result-path
        raise NotSerialisable(why)


def _encode_image(image: Any) -> tuple[bytes, str, str]:
    """Return an image of PIL as a file without loss, with its ending and content type: PNG, else TIFF."""
    from io import BytesIO

    for format_, ending in (("PNG", "png"), ("TIFF", "tiff")):
        buffer = BytesIO()
        try:
            image.save(buffer, format=format_)
        except (OSError, KeyError, ValueError):
            # PNG has no such mode, for example 32-bit floats.
            continue
        return buffer.getvalue(), ending, f"image/{ending}"
    raise NotSerialisable(f"an image of mode {image.mode!r} has no lossless file format; convert it first")


def _encode_figure(figure: Any) -> bytes:
    """Return a figure of matplotlib as PNG."""
    from io import BytesIO

    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _recognise(data: bytes) -> tuple[str, str]:
    """Return the ending and the content type for the format that the first bytes show."""
    for start, ending, content_type in _FORMATS:
        if data.startswith(start):
            return ending, content_type
    if data[:4] == b"RIFF":
        for mark, ending, content_type in _RIFF_FORMATS:
            if data[8:12] == mark:
                return ending, content_type
    if data[4:8] == b"ftyp":
        return "mp4", "video/mp4"
    return "bin", "application/octet-stream"

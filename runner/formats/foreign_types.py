"""Pure: recognises values of libraries that this process has imported, without importing any itself."""

from __future__ import annotations

import sys

#: Types that pydantic serialises as one JSON value: module and name.
_ATOMS = (
    ("datetime", "date"),
    ("datetime", "time"),
    ("datetime", "timedelta"),
    ("uuid", "UUID"),
    ("enum", "Enum"),
    ("decimal", "Decimal"),
)
#: Types that are saved as files, besides bytes.
_FILES = (
    ("pathlib", "PurePath"),
    ("PIL.Image", "Image"),
    ("matplotlib.figure", "Figure"),
)
#: What to return instead of a type, by its module and name.
_INSTEAD = {
    ("numpy", "ndarray"): "return a list: array.tolist(), or save it by ctx.save_file",
    ("torch", "Tensor"): "return a list: tensor.tolist(), or save it by ctx.save_file",
    ("jax", "Array"): "return a list: array.tolist(), or save it by ctx.save_file",
    ("pandas", "DataFrame"): 'return frame.to_dict("records"), or save it by ctx.save_file',
    ("pandas", "Series"): "return a list: series.tolist(), or save it by ctx.save_file",
}
_OTHERWISE = "return JSON values, a pydantic model or a dataclass, or save a file by ctx.save_file"


def is_pydantic_atom(value: object) -> bool:
    """Return whether the value is a date, time, duration, UUID, enumeration member or decimal."""
    return _is_one_of(type(value), _ATOMS)


def is_file(value: object) -> bool:
    """Return whether the value is bytes, a path, an image of PIL or a figure of matplotlib."""
    return is_file_type(type(value))


def is_file_type(kind: type) -> bool:
    """Return whether values of the type are saved as files."""
    return issubclass(kind, (bytes, bytearray, memoryview)) or _is_one_of(kind, _FILES)


def is_atom_type(kind: type) -> bool:
    """Return whether values of the type are what `is_pydantic_atom` recognises."""
    return _is_one_of(kind, _ATOMS)


def is_image(value: object) -> bool:
    """Return whether the value is an image of PIL."""
    return _is_one_of(type(value), (("PIL.Image", "Image"),))


def is_figure(value: object) -> bool:
    """Return whether the value is a figure of matplotlib."""
    return _is_one_of(type(value), (("matplotlib.figure", "Figure"),))


def is_numpy_scalar(value: object) -> bool:
    """Return whether the value is a number, text or time of numpy; not an array."""
    return _is_one_of(type(value), (("numpy", "generic"),))


def hint_instead_of(kind: type) -> str:
    """Return what a handler should return in place of a value of this type, which is not JSON."""
    for base in kind.__mro__:
        found = _INSTEAD.get((base.__module__.partition(".")[0], base.__name__))
        if found is not None:
            return found
    return _OTHERWISE


def _is_one_of(kind: type, names: tuple[tuple[str, str], ...]) -> bool:
    for module, name in names:
        base = getattr(sys.modules.get(module), name, None)
        if isinstance(base, type) and issubclass(kind, base):
            return True
    return False

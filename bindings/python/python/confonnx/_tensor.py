"""NumPy arrays to tensors and back; types are named as in the Open Inference Protocol."""

from __future__ import annotations

import math
import numbers
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np
import numpy.typing as npt

from confonnx.exceptions import ConfonnxError

Array = npt.NDArray[Any]
Data = bytes | bytearray | list[bytes]
Types = Mapping[str, str]
"""The data type of each input, by name."""


class Tensor(NamedTuple):
    """A tensor as it is sent."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Data
    """The elements' little-endian bytes in row-major order; for `BYTES` a list with a `bytes` for each element."""


_NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
}
_TYPES = {name: type_ for type_, name in _NUMPY_NAMES.items()}


def typed(value: object) -> bool:
    """Whether a value says its own data type: arrays do, Python's numbers and lists do not."""
    return hasattr(value, "dtype") or hasattr(value, "__array__")


def needs_types(data: object) -> bool:
    """Whether the model has to be asked before `data` can be sent."""
    return not isinstance(data, Mapping) or not all(map(typed, data.values()))


def named(data: object, types: Types | None) -> Mapping[str, Any]:
    """`data` with a name for each array: for a model with one input, the array may come alone."""
    if isinstance(data, Mapping):
        for name in data:
            if not isinstance(name, str):
                raise TypeError(f"data: expected names of inputs as keys, found {name!r} ({type(name).__name__})")
        return data
    if data is None:
        raise TypeError("data: expected a dict with an array for each input of the model, found None")
    if types is None or len(types) != 1:
        names = ", ".join(types or ())
        raise TypeError(
            f"data: expected a dict with an array for each input of the model ({names}), found {type(data).__name__};"
            " an array alone will do for models with one input"
        )
    return {next(iter(types)): data}


def tensors(data: object, types: Types | None = None) -> list[Tensor]:
    """All arrays of a request; `types` are the model's, needed where `needs_types(data)`.

    Raises `TypeError` for what no tensor type can hold, `ValueError` for what the model's type cannot.
    """
    return [
        tensor(name, value if typed(value) or types is None else fitting(name, value, types.get(name)))
        for name, value in named(data, types).items()
    ]


def tensor(name: str, value: npt.ArrayLike) -> Tensor:
    """The array as a tensor; copies its bytes."""
    array = np.asarray(value)
    if array.dtype.kind in "OUST":
        return Tensor(name, "BYTES", array.shape, [_string(name, item) for item in array.ravel().tolist()])
    type_ = _TYPES.get(array.dtype.name)
    if type_ is None:
        raise TypeError(
            f'"{name}" has data type {array.dtype}; expected one of {", ".join(_TYPES)}, or strings as objects'
        )
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    return Tensor(name, type_, array.shape, array.tobytes())


def fitting(name: str, value: Any, type_: str | None) -> Any:
    """Python's numbers or lists of them in the model's type.

    Floating-point literals are rounded to it, as everywhere; anything else that it cannot hold is a `ValueError`.
    """
    if value is None:
        raise TypeError(f'"{name}": expected an array, a number or a list, found None')
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f'"{name}": expected lists of equal length at each level: {error}') from None
    if type_ is None or type_ == "BYTES" or array.dtype.kind not in "biuf" and array.dtype != object:
        return array
    target = dtype(type_)
    with np.errstate(all="ignore"):
        try:
            found = array.astype(target)
        except (OverflowError, TypeError, ValueError):
            raise ValueError(f'"{name}": expected values that {target.name} can hold, found others') from None
        floating = target.kind not in "biu"
        if array.dtype.kind == "f" and floating:
            lossless = bool((np.isfinite(found.astype(np.float64)) == np.isfinite(array)).all())
        elif array.dtype.kind == "b" or target.kind == "b":
            lossless = array.size == 0 or array.dtype.kind == "b"
        else:
            lossless = _equal(array, found)
    if not lossless:
        raise ValueError(
            f'"{name}": the model takes {target.name}, which cannot hold all of these values exactly;'
            f' to convert them all the same: np.array(…).astype("{target.name}")'
        )
    return found


def _equal(before: Array, after: Array) -> bool:
    """Whether every element is the same number, compared as Python does: exactly, whatever the types."""
    pairs = zip(before.ravel().tolist(), after.ravel().tolist())
    return all(_same(a, b) for a, b in pairs)


def _same(a: object, b: object) -> bool:
    if isinstance(a, numbers.Real) and isinstance(b, numbers.Real):
        return bool(a == b) or (math.isnan(a) and math.isnan(b))
    return a == b


def array(type_: str, shape: Sequence[int], data: Data) -> Array:
    """The tensor as a writable array; it shares `data`'s memory unless it holds strings.

    Strings become an object array of `str`; an element that is not UTF-8 stays `bytes`.
    """
    if isinstance(data, list):
        strings = np.empty(len(data), dtype=object)
        strings[:] = [_text(item) for item in data]
        return strings.reshape(tuple(shape))
    return np.frombuffer(data, dtype=dtype(type_)).reshape(tuple(shape))


def dtype(type_: str) -> np.dtype[Any]:
    """NumPy's data type of that name; `bfloat16` needs the package `ml_dtypes`."""
    if type_ != "BF16":
        little: np.dtype[Any] = np.dtype(_NUMPY_NAMES[type_]).newbyteorder("<")
        return little
    try:
        import ml_dtypes
    except ImportError as error:
        raise ConfonnxError(
            "the tensor is of type bfloat16, which NumPy lacks: install ml_dtypes (pip install 'confonnx[bfloat16]')"
        ) from error
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def mending(data: object, types: Types) -> str | None:
    """The line of code that converts arrays to the model's floating or integer types, if that is what is wrong with
    `data`."""
    lines = []
    for name, value in named(data, types).items():
        found = getattr(getattr(value, "dtype", None), "name", None)
        wanted = _NUMPY_NAMES.get(types.get(name, ""))
        if found in _TYPES and wanted is not None and found != wanted:
            lines.append(f'data["{name}"] = data["{name}"].astype("{wanted}")')
    return "; ".join(lines) or None


def _string(name: str, item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise TypeError(f'"{name}" is an object array; expected str or bytes elements, found {type(item).__name__}')


def _text(item: bytes) -> str | bytes:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item

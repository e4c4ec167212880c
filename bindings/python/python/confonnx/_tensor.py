"""NumPy arrays to tensors and back: `(name, type, shape, data)`, types named as in the Open Inference Protocol.

`data` is the elements' little-endian bytes in row-major order; for `BYTES` a list with one `bytes` an element.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from confonnx.exceptions import ConfonnxError

Array = npt.NDArray[Any]
Data = bytes | bytearray | list[bytes]
Tensor = tuple[str, str, Sequence[int], Data]

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


def tensors(arrays: Mapping[str, npt.ArrayLike]) -> list[Tensor]:
    """All arrays of a request; raises `TypeError` for what no tensor type can hold."""
    return [tensor(name, array) for name, array in arrays.items()]


def tensor(name: str, value: npt.ArrayLike) -> Tensor:
    """One array; copies its bytes."""
    array = np.asarray(value)
    if array.dtype.kind in "OUST":
        return name, "BYTES", array.shape, [_string(name, item) for item in array.ravel().tolist()]
    type_ = _TYPES.get(array.dtype.name)
    if type_ is None:
        raise TypeError(
            f'"{name}" has data type {array.dtype}; expected one of {", ".join(_TYPES)}, or strings as objects'
        )
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    return name, type_, array.shape, array.tobytes()


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
    """NumPy's data type; `bfloat16` needs the package `ml_dtypes`."""
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

"""NumPy arrays to tensors and back."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest

from confonnx import _tensor
from confonnx.exceptions import ConfonnxError

DTYPES = [
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", ml_dtypes.bfloat16),
]


def round_trip(value: object) -> np.ndarray:
    _, type_, shape, data = _tensor.tensor("x", value)
    return _tensor.array(type_, shape, bytearray(data) if isinstance(data, bytes) else data)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 1)], ids=str)
def test_every_type_and_shape_comes_back(dtype: object, shape: tuple[int, ...]) -> None:
    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    back = round_trip(array)
    assert back.dtype == array.dtype
    assert back.shape == shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_names_are_those_of_the_protocol() -> None:
    assert _tensor.tensor("x", np.float32([[1, 2]])) == ("x", "FP32", (1, 2), b"\0\0\x80?\0\0\0@")
    assert _tensor.tensor("x", np.array(["a", b"\xff"], dtype=object)) == ("x", "BYTES", (2,), [b"a", b"\xff"])


def test_order_in_memory_does_not_matter() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    for view in (np.asfortranarray(array), array[:, ::-1][:, ::-1], array.astype(">i4"), array.T.T):
        assert _tensor.tensor("x", view) == _tensor.tensor("x", array)


@pytest.mark.parametrize("strings", [["a", "β"], [b"a", "β".encode()], np.array(["a", "β"])], ids=["str", "bytes", "U"])
def test_strings_come_back_as_str(strings: object) -> None:
    back = round_trip(strings)
    assert back.dtype == object
    assert back.tolist() == ["a", "β"]


def test_strings_keep_their_shape_and_what_is_not_utf8() -> None:
    array = np.array([["a", ""], [b"\xff", "d"]], dtype=object)
    assert round_trip(array).tolist() == array.tolist()
    assert round_trip(np.array("scalar", dtype=object)).shape == ()
    assert round_trip(np.empty((0, 2), dtype=object)).shape == (0, 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([1j]), '"x" has data type complex128; expected one of bool, uint8'),
        (np.array(["2026-01-01"], dtype="datetime64[D]"), r'"x" has data type datetime64\[D\]'),
        (np.array([None]), '"x" is an object array; expected str or bytes elements, found NoneType'),
    ],
)
def test_what_no_tensor_holds_is_a_type_error(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        _tensor.tensor("x", value)


def test_bfloat16_without_ml_dtypes_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ConfonnxError, match=r"install ml_dtypes \(pip install 'confonnx\[bfloat16\]'\)"):
        _tensor.dtype("BF16")

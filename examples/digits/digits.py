"""The held-out digits that train.py wrote."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
MODEL = HERE / "digits.onnx"


def images() -> npt.NDArray[np.float32]:
    """float32 [1000, 1, 28, 28], 0 (paper) to 1 (ink), as the model wants them."""
    scaled: npt.NDArray[np.float32] = np.divide(_read_idx(HERE / "test-images-idx3-ubyte.gz"), 255, dtype=np.float32)
    return scaled[:, None]


def labels() -> npt.NDArray[np.uint8]:
    """uint8 [1000]: 0, 1, … 9, 0, 1, …"""
    return _read_idx(HERE / "test-labels-idx1-ubyte.gz")


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)

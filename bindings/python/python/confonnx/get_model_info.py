"""Inputs and outputs of an ONNX model: `python -m confonnx.get_model_info MODEL`. Needs no ONNX Runtime."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Sequence, TypedDict

from confonnx import _confonnx


class TensorInfo(TypedDict):
    """An input or output. Each dimension is a number, a symbol's name, or `None` when the model does not say."""

    shape: list[int | str | None]
    type: str


class ModelInfo(TypedDict):
    """Inputs and outputs by name, in the model's order."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


def get_model_info(model_path: str | os.PathLike[str]) -> ModelInfo:
    """Reads the model's file. Types are named as NumPy's: `float32`, `int64`, …; strings are `string`.

    Raises `OSError` when the file cannot be read, `ValueError` when it is no ONNX model.
    """
    info = _confonnx.model_info(os.fspath(model_path))
    return {
        "inputs": {value.name: {"shape": value.shape, "type": value.type} for value in info.inputs},
        "outputs": {value.name: {"shape": value.shape, "type": value.type} for value in info.outputs},
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m confonnx.get_model_info", description="Show inputs and outputs of an ONNX model"
    )
    parser.add_argument("model", help="Path to model")
    parser.add_argument("--out", help="Path to JSON model info file (default: print to console only)")
    args = parser.parse_args(argv)
    try:
        info = get_model_info(args.model)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    text = json.dumps(info, indent=2)
    if args.out:
        with open(args.out, "w") as file:
            file.write(text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])

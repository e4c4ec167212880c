"""Random inputs for an ONNX model: `python -m confonnx.create_test_inputs MODEL --out FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Sequence

import numpy as np

from confonnx.get_model_info import ModelInfo, get_model_info


def create_test_inputs(model_info: ModelInfo) -> dict[str, dict[str, Any]]:
    """Values for each input, as `{"name": {"type": "float32", "values": […]}}`, the form of `--json-in`.

    `model_info` is that of `get_model_info`. Dimensions that the model leaves open are 1. Floats are in [0, 1), 8-bit
    integers in 0 to 9, others 0 or 1, as ids, masks and token types can be.
    """
    inputs = {}
    for name, info in model_info["inputs"].items():
        shape = [dim if isinstance(dim, int) else 1 for dim in info["shape"]]
        inputs[name] = {"type": info["type"], "values": _random(info["type"], shape)}
        if 0 in shape:
            # Nested lists without elements do not tell all dimensions.
            inputs[name]["shape"] = shape
    return inputs


def _random(type_: str, shape: list[int]) -> Any:
    rng = np.random.default_rng()
    if type_ in ("bool", "string"):
        bits = rng.integers(0, 2, shape)
        return (bits.astype(bool) if type_ == "bool" else np.where(bits, "test", "input")).tolist()
    if "float" in type_:
        # Values are multiples of 1/16, so that no float type has to round.
        return (rng.integers(0, 16, shape) / 16).tolist()
    # Integers may be indices into a table of unknown size, or one of two token types; these values suit both.
    return rng.integers(0, 10 if type_ in ("int8", "uint8") else 2, shape, dtype=type_).tolist()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m confonnx.create_test_inputs", description="Make random inputs for an ONNX model"
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("path", nargs="?", metavar="MODEL", help="Path to ONNX model")
    model.add_argument("--model", metavar="MODEL", help="The same")
    parser.add_argument(
        "--out", help="Path to randomly generated inference input data in JSON format", required=True
    )
    args = parser.parse_args(argv)
    try:
        inputs = create_test_inputs(get_model_info(args.path or args.model))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with open(args.out, "w") as file:
        json.dump(inputs, file)
    print(f"Data written to {args.out}")


if __name__ == "__main__":
    main(sys.argv[1:])

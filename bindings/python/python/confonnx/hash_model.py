"""The hash by which a client knows a model: `python -m confonnx.hash_model MODEL`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Sequence

from confonnx import _confonnx


def hash_model(model_path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file, or of its manifest when the model has external data; hex.

    Raises `OSError` when a file cannot be read, `ValueError` when a model with external data is malformed.
    """
    return _confonnx.model_hash(os.fspath(model_path))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m confonnx.hash_model", description="Hash an ONNX model")
    parser.add_argument("model", help="Path to model")
    parser.add_argument("--out", help="Path to computed model hash (default: print to console only)")
    args = parser.parse_args(argv)
    try:
        sha256 = hash_model(args.model)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.out:
        with open(args.out, "w") as file:
            file.write(sha256)
    print(sha256)


if __name__ == "__main__":
    main(sys.argv[1:])

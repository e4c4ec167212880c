"""State in a model that its rows know nothing of one another: `python -m confonnx.annotate MODEL --out FILE`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Mapping, Sequence

from confonnx import _confonnx


def annotate(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    rows_independent: bool = True,
    batch_axis: int = 0,
    other_axes: Mapping[str, int] | None = None,
) -> str:
    """Writes the `.onnx` file `model` to `out` with its owner's statement that rows are independent, and returns its hash.

    A server may then run requests of several callers together. State it only of models whose answer to each row is the same
    whatever the other rows are. Rows lie along `batch_axis`, counted from 0, of all inputs and outputs but those in
    `other_axes`, by name. `rows_independent=False` takes the statement out.

    Raises `ValueError` when `model` is no model or has no such axis; `OSError` when a file cannot be read or written.
    """
    axes = list((other_axes or {}).items())
    return _confonnx.annotate(os.fspath(model), os.fspath(out), rows_independent, batch_axis, axes)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m confonnx.annotate", description="State in an ONNX model that its rows know nothing of one another"
    )
    parser.add_argument("model", help="Path to model")
    parser.add_argument("--out", required=True, metavar="FILE", help="Path to the model with the statement")
    parser.add_argument(
        "--batch-axis", action="append", default=[], metavar="AXIS", help="Axis of the rows, from 0 (default), or NAME=AXIS"
    )
    parser.add_argument("--remove", action="store_true", help="Take the statement out")
    args = parser.parse_args(argv)
    axis, others = 0, {}
    try:
        for given in args.batch_axis:
            name, separator, number = given.rpartition("=")
            if separator:
                others[name] = int(number)
            else:
                axis = int(number)
        print(annotate(args.model, args.out, rows_independent=not args.remove, batch_axis=axis, other_axes=others))
    except (OSError, ValueError, OverflowError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])

"""ONNX's published backend cases through a server: each answer is that of bare ONNX Runtime with as many threads, bit for bit.

    published.py [--every N]

All cases of the kinds node, simple and pytorch-*, or every Nth by name. A case that bare ONNX Runtime does not pass, or whose
tensors the protocol cannot carry (sequences, 4-bit and 8-bit floats, …), is counted apart. Exits 1 if an answer differs, a model
is refused that could be served, or the server ends.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from live import Live, bare
from onnx import numpy_helper
from onnx.backend.test import loader

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
IN_A_SERVER = 150


@dataclass
class Case:
    """A model, an input, and bare ONNX Runtime's answer."""

    name: str
    model: bytes
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def is_close(found: object, expected: object, case: object) -> bool:
    """Compares as the published runner does, near enough to leave out what bare ONNX Runtime gets wrong."""
    if not isinstance(found, np.ndarray) or not isinstance(expected, np.ndarray):
        return False
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if found.dtype.kind in "OSU":
        return bool((found.astype(str) == expected.astype(str)).all())
    return bool(np.allclose(found.astype(np.float64), expected.astype(np.float64), case.rtol, case.atol, equal_nan=True))


def data(case: object) -> tuple[bytes, list, list]:
    """The case's model, and its first set of inputs and outputs."""
    if case.model is not None:
        inputs, outputs = case.data_sets[0]
        return case.model.SerializeToString(), list(inputs), list(outputs)
    folder = Path(case.model_dir)
    model = (folder / "model.onnx").read_bytes()

    def read(kind: str) -> list:
        files = sorted(folder.glob(f"test_data_set_0/{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
        return [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in files]

    return model, read("input"), read("output")


def passes_bare(case: object) -> Case | str:
    """The case, or the reason why it is counted apart."""
    try:
        model, inputs, expected = data(case)
        session = bare(model)
        names = [value.name for value in session.get_inputs()]
        feeds = dict(zip(names, inputs))
        if not all(isinstance(value, np.ndarray) for value in inputs):
            return "not tensors"
        # Inputs are aligned as ONNX Runtime aligns buffers of its own.
        feeds = {name: aligned(value) for name, value in feeds.items()}
        found = session.run(None, feeds)
    except Exception:
        return "not passed by bare ONNX Runtime"
    if not all(isinstance(value, np.ndarray) for value in found):
        return "not tensors"
    if not all(is_close(one, other, case) for one, other in zip(found, expected)):
        return "not passed by bare ONNX Runtime"
    outputs = {value.name: array for value, array in zip(session.get_outputs(), found)}
    return Case(case.name, model, feeds, outputs)


def aligned(array: np.ndarray) -> np.ndarray:
    if array.dtype == object:
        return array
    room = np.empty(array.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    view = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return found.tolist() == expected.tolist() if expected.dtype == object else found.tobytes() == expected.tobytes()


def serve(cases: list[Case], counts: Counter[str]) -> list[str]:
    """What went wrong with `cases`, which get a server of their own."""
    wrong = []
    models = {f"c{index}": case.model for index, case in enumerate(cases)}
    with Live(models, "--num-sessions", "1") as live, live.client(timeout=60) as client:
        for index, case in enumerate(cases):
            try:
                answer = client.predict(case.inputs, model=f"c{index}")
            except Exception as error:
                if "Open Inference Protocol" in str(error) or "only tensors can be sent" in str(error):
                    counts["not tensors of the protocol"] += 1
                    continue
                wrong.append(f"{case.name}: {type(error).__name__}: {error}")
                if not live.alive():
                    return [*wrong, f"the server ended: {live.said()[-500:]}"]
                continue
            if list(answer) == list(case.outputs) and all(same(answer[name], case.outputs[name]) for name in answer):
                counts["the same, bit for bit"] += 1
            else:
                wrong.append(f"{case.name}: the answer differs")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth case only")
    every = parser.parse_args().every
    warnings.simplefilter("ignore")
    published = sorted((case for kind in KINDS for case in loader.load_model_tests(kind=kind)), key=lambda case: case.name)
    counts: Counter[str] = Counter()
    cases, wrong = [], []
    for published_case in published[::every]:
        case = passes_bare(published_case)
        if isinstance(case, str):
            counts[case] += 1
        else:
            cases.append(case)
    for start in range(0, len(cases), IN_A_SERVER):
        wrong += serve(cases[start : start + IN_A_SERVER], counts)
    counts["wrong"] = len(wrong)
    print(f"{len(published[::every])} of {len(published)} published cases:", ", ".join(f"{n} {what}" for what, n in counts.items()))
    for line in wrong:
        print(line)
    sys.exit(bool(wrong) or not counts["the same, bit for bit"])


main()

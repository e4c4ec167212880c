"""Writes the fixtures beside this file. Needs: pip install onnx numpy ml_dtypes (made with onnx 1.23.2).

    python crates/confonnx-model/tests/data/make.py
"""

from pathlib import Path

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

HERE = Path(__file__).parent


def save(name, graph, opset=17, ir_version=8, **kwargs):
    model = helper.make_model(
        graph, producer_name="make.py", producer_version="1",
        opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, **kwargs,
    )
    (HERE / name).write_bytes(model.SerializeToString(deterministic=True))
    return model


def add_graph(inputs, outputs, name="add", **kwargs):
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    return helper.make_graph(nodes, name, inputs, outputs, **kwargs)


value = helper.make_tensor_value_info
weights = numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")

# Symbolic, unknown and fixed dimensions; "w" is an initializer and, as in old models, an input too.
x = value("x", TensorProto.FLOAT, ["batch", None, 3])
w = value("w", TensorProto.FLOAT, [3])
y = value("y", TensorProto.FLOAT, None)  # no shape at all
save("add.onnx", add_graph([x, w], [y], initializer=[weights]))

# One input of every type, passed through.
types = [
    TensorProto.BOOL, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.STRING,
]
save("types.onnx", helper.make_graph(
    [helper.make_node("Identity", [f"in_{i}"], [f"out_{i}"]) for i in range(len(types))], "types",
    [value(f"in_{i}", t, [2]) for i, t in enumerate(types)],
    [value(f"out_{i}", t, []) for i, t in enumerate(types)],
))

# Weights in other files: one of the graph, one deep in a branch of an If.
def external(name, location, array):
    tensor = numpy_helper.from_array(array, name)
    path = HERE / location
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(tensor.raw_data)
    set_external_data(tensor, location, 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    return tensor


outer = external("w", "external.bin", np.arange(3, dtype=np.float32))
inner = external("c", "parts/inner.bin", np.ones(3, dtype=np.float32))
branch = lambda: helper.make_graph(  # noqa: E731
    [helper.make_node("Constant", [], ["k"], value=inner)], "branch", [], [value("k", TensorProto.FLOAT, [3])])
save("external.onnx", helper.make_graph(
    [
        helper.make_node("If", ["flag"], ["k"], then_branch=branch(), else_branch=branch()),
        helper.make_node("Add", ["k", "w"], ["y"]),
    ],
    "external", [value("flag", TensorProto.BOOL, [])], [value("y", TensorProto.FLOAT, [3])], initializer=[outer],
))

# Locations of external data that must be refused.
for name, location in [
    ("absolute", "/etc/passwd"), ("parent", "../secret.bin"), ("address", "*/_ORT_MEM_ADDR_/*"), ("empty", ""),
]:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    save(f"location-{name}.onnx", add_graph([x], [y], initializer=[tensor]))

# Models with inputs of types that cannot be sent.
save("complex.onnx", add_graph([value("x", TensorProto.COMPLEX64, [1])], [y], initializer=[weights]))
sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
save("sequence.onnx", add_graph([sequence], [y], initializer=[weights]))

# TensorProto files: raw as NumPy arrays give them, typed as helper.make_tensor does. Values are 0, 1 and the largest.
arrays = {
    "BOOL": np.array([False, True, True]), "BYTES": np.array(["", "é", "abc"], dtype=object),
    "FP16": np.array([0, 1, 65504], np.float16), "BF16": np.array([0, 1, 2.0**100], ml_dtypes.bfloat16),
    "FP32": np.array([0, 1, np.inf], np.float32), "FP64": np.array([0, 1, np.inf], np.float64),
}
for bits in (8, 16, 32, 64):
    arrays[f"INT{bits}"] = np.array([0, 1, -(2 ** (bits - 1))], f"int{bits}")
    arrays[f"UINT{bits}"] = np.array([0, 1, 2**bits - 1], f"uint{bits}")
for name, array in arrays.items():
    elem_type = TensorProto.STRING if name == "BYTES" else helper.np_dtype_to_tensor_dtype(array.dtype)
    raw = numpy_helper.from_array(array, name)
    typed = helper.make_tensor(name, elem_type, array.shape, array.tolist())
    (HERE / f"raw-{name}.pb").write_bytes(raw.SerializeToString())
    (HERE / f"typed-{name}.pb").write_bytes(typed.SerializeToString())
(HERE / "scalar.pb").write_bytes(numpy_helper.from_array(np.float32(0.5), "s").SerializeToString())
(HERE / "empty.pb").write_bytes(numpy_helper.from_array(np.zeros((0, 4), np.int64), "e").SerializeToString())

# A model as scikit-learn's exporter makes it, which ends in a map for each row; and one with maps that no ZipMap makes.
floats = value("x", TensorProto.FLOAT, ["n", 3])
maps = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None)))
zipmap = helper.make_node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", classlabels_strings=["cat", "dog", "owl"])
model = helper.make_model(
    helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["p"]), zipmap], "zipmap", [floats],
        [helper.make_value_info("probabilities", maps)],
    ),
    producer_name="make.py", opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)], ir_version=8,
)
(HERE / "zipmap.onnx").write_bytes(model.SerializeToString(deterministic=True))
save("maps.onnx", helper.make_graph([], "maps", [helper.make_value_info("m", maps)], [helper.make_value_info("m", maps)]))

# External data: one file named in two ways, and one with signs that are allowed in names. A Gather of cast indices.
tables = [external(f"t{i}", "external.bin", np.arange(3, dtype=np.float32)) for i in range(3)]
for tensor, location in zip(tables, ["./external.bin", "external.bin", "a:b*.bin"]):
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
save("location-spellings.onnx", helper.make_graph(
    [helper.make_node("Cast", ["ids"], ["c"], to=TensorProto.INT64), helper.make_node("Gather", ["t0", "c"], ["y"])],
    "spellings", [value("ids", TensorProto.INT32, ["n"])], [value("y", TensorProto.FLOAT, ["n"])], initializer=tables,
))

"""Print Triton's configuration of a model: config.py MODEL. `serve` adds how many instances there are."""

import sys

import onnxruntime as ort

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}


def ports(kind: str, tensors: list) -> str:
    text = ""
    for tensor in tensors:
        dims = ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in tensor.shape)
        text += f'{kind} [{{ name: "{tensor.name}", data_type: {TYPES[tensor.type]}, dims: [{dims}] }}]\n'
    return text


session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print('name: "model"\nbackend: "python"\nmax_batch_size: 0')
print(ports("input", session.get_inputs()) + ports("output", session.get_outputs()), end="")

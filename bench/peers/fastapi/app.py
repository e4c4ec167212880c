"""ONNX Runtime behind FastAPI: raw bytes at /raw, Open Inference Protocol v2 JSON at /json.

Inputs and answers at /raw are the tensors' bytes one after the other, in the model's order; shapes are agreed beforehand.
"""

import json
import os

import numpy as np
import onnxruntime as ort
import orjson
from fastapi import FastAPI, Request, Response

TYPES = {"FP32": np.float32, "INT64": np.int64}
NAMES = {np.dtype(value): name for name, value in TYPES.items()}

options = ort.SessionOptions()
options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
inputs = [(name, TYPES[dtype], shape) for name, dtype, shape in json.loads(os.environ["BENCH_INPUTS"])]
app = FastAPI()


@app.post("/raw")
async def raw(request: Request) -> Response:
    body, at, feed = await request.body(), 0, {}
    for name, dtype, shape in inputs:
        count = int(np.prod(shape))
        feed[name] = np.frombuffer(body, dtype, count, at).reshape(shape)
        at += feed[name].nbytes
    outputs = session.run(names, feed)
    return Response(b"".join(output.tobytes() for output in outputs), media_type="application/octet-stream")


@app.post("/json")
async def infer(request: Request) -> Response:
    asked = orjson.loads(await request.body())
    feed = {
        tensor["name"]: np.array(tensor["data"], TYPES[tensor["datatype"]]).reshape(tensor["shape"])
        for tensor in asked["inputs"]
    }
    outputs = [
        {"name": name, "datatype": NAMES[value.dtype], "shape": value.shape, "data": value.reshape(-1)}
        for name, value in zip(names, session.run(names, feed))
    ]
    answer = {"model_name": "model", "outputs": outputs}
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

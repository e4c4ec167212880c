"""ONNX Runtime behind LitServe, with Open Inference Protocol v2 JSON: app.py MODEL PORT INSTANCES THREADS."""

import sys

import litserve
import numpy as np
import onnxruntime as ort
import orjson
from fastapi import Response

TYPES = {"FP32": np.float32, "INT64": np.int64}
NAMES = {np.dtype(value): name for name, value in TYPES.items()}
model, port, instances, threads = sys.argv[1], *map(int, sys.argv[2:])


class Onnx(litserve.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def decode_request(self, request):
        return {
            tensor["name"]: np.array(tensor["data"], TYPES[tensor["datatype"]]).reshape(tensor["shape"])
            for tensor in request["inputs"]
        }

    def predict(self, feed):
        return self.session.run(self.names, feed)

    def encode_response(self, answers):
        outputs = [
            {"name": name, "datatype": NAMES[value.dtype], "shape": value.shape, "data": value.reshape(-1)}
            for name, value in zip(self.names, answers)
        ]
        answer = {"model_name": "model", "outputs": outputs}
        return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(Onnx(), accelerator="cpu", workers_per_device=instances, timeout=False)
    server.run(host="127.0.0.1", port=port, log_level="warning", access_log=False, generate_client_file=False)

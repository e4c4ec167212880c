"""onnxruntime-genai in Triton's Python backend, a response for each token: a thread for each request, which sends as it goes."""

import os
import sys
import threading

# The backend's interpreter ignores PYTHONPATH.
sys.path[:0] = [os.environ["BENCH_PACKAGES"], os.environ["BENCH_GENAI_LOOP"]]

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from answer import Answers  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.answers = Answers(os.environ["BENCH_MODEL"])

    def execute(self, requests):
        for request in requests:
            prompt, most = (
                pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("tokens", "max_tokens")
            )
            threading.Thread(target=self.send, args=(request.get_response_sender(), prompt.tolist(), int(most[0]))).start()

    def send(self, sender, prompt, most):
        try:
            for token, text in self.answers.to(prompt, most):
                tensors = [
                    pb_utils.Tensor("token", np.array([token], np.int64)),
                    pb_utils.Tensor("text", np.array([text.encode()], np.object_)),
                ]
                sender.send(pb_utils.InferenceResponse(tensors))
        except Exception as error:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

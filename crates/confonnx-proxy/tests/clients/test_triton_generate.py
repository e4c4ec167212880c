"""Triton's generate extension, and `tritonclient`'s streams with the tensors of Triton's vLLM backend."""

from __future__ import annotations

import json
import queue
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import ROOT, Proxy, Server
from tritonclient.utils import InferenceServerException

DECODER = ROOT / "crates" / "confonnx-engine" / "tests" / "data" / "decoder.onnx"
# What onnxruntime's Python package says: see the engine's tests.
SAID = bytes([255, 114, 156, 182, 152, 199, 12, 12, 12, 12, 12, 12]).decode(errors="replace")
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def proxy(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> Proxy:
    """A proxy before a server with a language model of a few thousand random weights."""
    return start_proxy("--url", start_server(DECODER, "--model-name", "decoder").url, "--enclave-allow-debug")


@pytest.fixture
def client(proxy: Proxy) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(proxy.grpc) as client:
        yield client


def post(proxy: Proxy, path: str, body: object) -> tuple[int, str, bytes]:
    request = urllib.request.Request(
        f"{proxy.url}/v2/models/decoder/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read()


def test_a_whole_answer(proxy: Proxy) -> None:
    for path in ["generate", "versions/1/generate"]:
        status, kind, body = post(proxy, path, {"text_input": "hello", "parameters": GREEDY})
        assert (status, kind) == (200, "application/json")
        assert json.loads(body) == {"model_name": "decoder", "model_version": "1", "text_output": f"hello{SAID}"}
    _, _, body = post(proxy, "generate", {"text_input": "hello", "exclude_input_in_output": True} | GREEDY)
    assert json.loads(body)["text_output"] == SAID


def test_a_stream(proxy: Proxy) -> None:
    status, kind, body = post(proxy, "generate_stream", {"text_input": "hello", "stream": True} | GREEDY)
    assert (status, kind) == (200, "text/event-stream")
    events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
    assert len(events) > 3 and "".join(event["text_output"] for event in events) == SAID
    assert all(event["model_name"] == "decoder" for event in events)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("generate", {}, "text_input"),
        ("generate", {"text_input": "hello", "stream": True}, "generate_stream"),
        ("generate_stream", {"text_input": "hello", "beam_width": 2}, "beam_width"),
        ("generate", {"text_input": "hello", "max_tokens": 100_000}, "max_tokens"),
    ],
)
def test_errors_have_tritons_shape(proxy: Proxy, path: str, body: dict[str, object], said: str) -> None:
    status, _, answer = post(proxy, path, body)
    assert status == 400 and said in json.loads(answer)["error"]


def tensor(name: str, value: str | bool) -> triton.InferInput:
    text = isinstance(value, str)
    given = triton.InferInput(name, [1], "BYTES" if text else "BOOL")
    given.set_data_from_numpy(np.array([value.encode()], object) if isinstance(value, str) else np.array([value]))
    return given


def streamed(client: triton.InferenceServerClient, inputs: list[triton.InferInput], **more: object) -> list[object]:
    """The results up to the one that says that it is the last, or an error."""
    came: queue.Queue[object] = queue.Queue()
    client.start_stream(lambda result, error: came.put(error or result))
    client.async_stream_infer("decoder", inputs, enable_empty_final_response=True, request_id="7", **more)
    found = []
    while True:
        found.append(came.get(timeout=30))
        last = found[-1]
        if isinstance(last, Exception) or last.get_response().parameters["triton_final_response"].bool_param:
            break
    client.stop_stream()
    return found


def said(result: object) -> str:
    assert isinstance(result, triton.InferResult) and result.get_response().id == "7"
    (text,) = result.as_numpy("text_output")
    return text.decode()


def test_a_stream_of_grpc(client: triton.InferenceServerClient) -> None:
    inputs = [tensor("text_input", "hello"), tensor("sampling_parameters", json.dumps(GREEDY))]
    pieces = [said(result) for result in streamed(client, [*inputs, tensor("stream", True)])]
    assert len(pieces) > 3 and "".join(pieces) == SAID
    (whole,) = streamed(client, [*inputs, tensor("stream", False), tensor("exclude_input_in_output", True)])
    assert said(whole) == SAID
    # The metadata has the model's own tensors, besides those of the extension.
    assert {tensor.name for tensor in client.get_model_metadata("decoder").inputs} > {"input_ids"}


def test_errors_of_a_stream_of_grpc(client: triton.InferenceServerClient) -> None:
    for inputs, expected in [
        ([tensor("text_input", "hello"), tensor("sampling_parameters", "[]")], "JSON object"),
        ([tensor("text_input", "hello"), tensor("sampling_parameters", '{"beams": 2}')], "beams"),
        ([tensor("text_input", "hello"), tensor("image", "x")], "unexpected input 'image'"),
    ]:
        (error,) = streamed(client, inputs)
        assert isinstance(error, InferenceServerException) and expected in str(error), error

"""`tritonclient.grpc`, and that the interface is the one it was built from."""

from __future__ import annotations

import base64
import queue
from pathlib import Path
from typing import Any, Callable, Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from conftest import TYPES, USER, Proxy, Recorder, Server, free_port, sample
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

PROTO = Path(__file__).resolve().parents[2] / "proto" / "inference.proto"


@pytest.fixture
def client(proxy: Proxy) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(proxy.grpc) as client:
        yield client


def tensor(name: str, kind: str, values: np.ndarray) -> triton.InferInput:
    given = triton.InferInput(name, list(values.shape), kind)
    given.set_data_from_numpy(values)
    return given


def vectors() -> list[triton.InferInput]:
    values = np.arange(3, dtype=np.float32)
    return [tensor(name, "FP32", values) for name in "ab"]


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add", "1")
    assert not client.is_model_ready("absent")
    server = client.get_server_metadata()
    assert server.name == "confonnx"
    assert {"binary_tensor_data", "model_configuration", "statistics"} <= set(server.extensions)
    model = client.get_model_metadata("add")
    assert (model.name, list(model.versions), model.inputs[0].datatype) == ("add", ["1"], "FP32")
    config = client.get_model_config("identity").config
    assert (config.name, config.backend, config.max_batch_size) == ("identity", "onnxruntime", 0)
    kinds = {given.name: model_config_pb2.DataType.Name(given.data_type) for given in config.input}
    assert (kinds["in_BYTES"], kinds["in_BF16"]) == ("TYPE_STRING", "TYPE_BF16")


def test_every_type_comes_back_as_it_was(client: triton.InferenceServerClient) -> None:
    inputs = [tensor(f"in_{name}", name, sample(name)) for name in TYPES]
    result = client.infer("identity", inputs, request_id="seven")
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "identity", "1")
    for name in TYPES:
        found = result.as_numpy(f"out_{name}")
        assert found.shape == (1, 2), name
        assert (found == sample(name)).all(), name


def test_typed_contents_are_taken(proxy: Proxy) -> None:
    request = service_pb2.ModelInferRequest(model_name="add")
    for name in "ab":
        given = request.inputs.add(name=name, datatype="FP32", shape=[2])
        given.contents.fp32_contents.extend([1.5, 2])
    with grpc.insecure_channel(proxy.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [3, 4]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_packed_requests(client: triton.InferenceServerClient, algorithm: str) -> None:
    assert client.infer("add", vectors(), compression_algorithm=algorithm).as_numpy("sum").tolist() == [0, 2, 4]


def test_large_tensors(client: triton.InferenceServerClient) -> None:
    values = np.arange(3_000_000, dtype=np.float32)
    result = client.infer("add", [tensor(name, "FP32", values) for name in "ab"])
    assert (result.as_numpy("sum") == 2 * values).all()


def test_async(client: triton.InferenceServerClient) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(16):
        client.async_infer("add", vectors(), lambda result, error: done.put((result, error)))
    for _ in range(16):
        result, error = done.get(timeout=60)
        assert error is None
        assert result.as_numpy("sum").tolist() == [0, 2, 4]


def test_stream(client: triton.InferenceServerClient) -> None:
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    for number in range(40):
        values = np.full(2, number, dtype=np.float32)
        model = "absent" if number == 20 else "add"
        inputs = [tensor(name, "FP32", values) for name in "ab"]
        client.async_stream_infer(model, inputs, request_id=str(number), enable_empty_final_response=True)
    for number in range(40):
        result, error = done.get(timeout=60)
        if number == 20:
            assert "absent" in error.message()
            continue
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        assert result.as_numpy("sum").tolist() == [2 * number] * 2
    client.stop_stream()


def test_statistics(client: triton.InferenceServerClient) -> None:
    def numbers() -> tuple[int, int]:
        [found] = client.get_inference_statistics("add").model_stats
        return found.inference_stats.success.count, found.inference_stats.fail.count

    success, fail = numbers()
    client.infer("add", vectors())
    with pytest.raises(InferenceServerException):
        client.infer("add", vectors()[:1])
    assert numbers() == (success + 1, fail + 1)
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'absent'"):
        client.get_inference_statistics("absent")


def test_repository(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    assert {(model.name, model.version, model.state) for model in index.models} == {
        ("add", "1", "READY"),
        ("identity", "1", "READY"),
    }
    client.unload_model("identity")
    assert not client.is_model_ready("identity")
    client.load_model("identity")
    assert client.is_model_ready("identity")
    with pytest.raises(InferenceServerException, match="no parameters"):
        client.load_model("identity", config="{}")


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as error:
        call()
    return str(error.value.status()), str(error.value.message())


def test_errors_are_the_servers_own(client: triton.InferenceServerClient) -> None:
    assert refused(lambda: client.infer("absent", vectors()))[0] == "StatusCode.NOT_FOUND"
    wrong = [tensor(name, "INT32", np.arange(3, dtype=np.int32)) for name in "ab"]
    assert refused(lambda: client.infer("add", wrong))[0] == "StatusCode.INVALID_ARGUMENT"
    labels = [triton.InferRequestedOutput("sum", class_count=2)]
    code, text = refused(lambda: client.infer("add", vectors(), outputs=labels))
    assert code == "StatusCode.UNIMPLEMENTED" and "sum" in text


def test_shared_memory_trace_and_log_settings_get_tritons_refusal(client: triton.InferenceServerClient) -> None:
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    given = vectors()
    given[0].set_shared_memory("region", 12)
    for call, text in [
        (lambda: client.register_system_shared_memory("region", "/key", 64), "Unable to open shared memory region: '/key'"),
        (lambda: client.register_cuda_shared_memory("region", base64.b64encode(b"handle"), 0, 64), "'region', GPUs not supported"),
        (lambda: client.infer("add", given), "Unable to find shared memory region: 'region'"),
        (client.get_trace_settings, "the server does not support tracing"),
        (lambda: client.update_trace_settings(settings={"trace_level": "OFF"}), "the server does not support tracing"),
        (client.get_log_settings, "the server does not support dynamic logging"),
        (lambda: client.update_log_settings({"log_info": True}), "the server does not support dynamic logging"),
    ]:
        assert text in refused(call)[1]


def test_the_programs_own_token_travels_sealed(open_proxy: Proxy) -> None:
    with triton.InferenceServerClient(open_proxy.grpc) as client:
        assert refused(lambda: client.infer("add", vectors()))[0] == "StatusCode.UNAUTHENTICATED"
        headers = {"authorization": f"Bearer {USER}"}
        assert client.infer("add", vectors(), headers=headers).as_numpy("sum").tolist() == [0, 2, 4]
        assert refused(lambda: client.get_model_metadata("identity", headers=headers))[0] == "StatusCode.PERMISSION_DENIED"


def test_each_fault_is_an_error_of_its_own(start_proxy: Callable[..., Proxy], server: Server) -> None:
    def ask(*flags: str) -> tuple[str, str]:
        with triton.InferenceServerClient(start_proxy(*flags).grpc) as client:
            return refused(lambda: client.infer("add", vectors()))

    code, text = ask("--url", server.url, "--enclave-hash", "ab" * 32)
    assert code == "StatusCode.UNAVAILABLE" and "expected" in text and "abab" in text
    nobody = f"http://127.0.0.1:{free_port()}"
    code, text = ask("--url", nobody, "--enclave-allow-debug", "--retries", "0")
    assert code == "StatusCode.UNAVAILABLE" and "no answer from" in text
    code, text = ask("--url", Recorder().url, "--enclave-allow-debug", "--timeout", "0.5")
    assert code == "StatusCode.DEADLINE_EXCEEDED" and "within 0.5 s" in text


def fields(message: descriptor_pb2.DescriptorProto, name: str) -> dict[str, tuple]:
    found = {f"{name}.{f.name}": (f.number, f.type, f.type_name, f.label) for f in message.field}
    for inner in message.nested_type:
        found |= fields(inner, f"{name}.{inner.name}")
    return found


def test_the_interface_is_the_one_that_clients_have(tmp_path: Path) -> None:
    out = tmp_path / "interface"
    assert protoc.main(["protoc", f"-I{PROTO.parent}", f"--descriptor_set_out={out}", PROTO.name]) == 0
    [ours] = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    theirs = [descriptor_pb2.FileDescriptorProto.FromString(m.DESCRIPTOR.serialized_pb) for m in (service_pb2, model_config_pb2)]
    known = {key: value for file in theirs for message in file.message_type for key, value in fields(message, message.name).items()}
    mine = {key: value for message in ours.message_type for key, value in fields(message, message.name).items()}
    assert {key: known.get(key) for key in mine} == mine
    # Of a configuration only what metadata tells is defined; of every other message all fields are.
    assert {key.split(".")[0] for key in known.keys() - mine.keys()} >= {"ModelConfig"}
    service = {message.name for message in theirs[0].message_type}
    assert not [key for key in known.keys() - mine.keys() if key.split(".")[0] in service]
    calls = [[(c.name, c.input_type, c.output_type, c.client_streaming, c.server_streaming) for c in file.service[0].method] for file in (ours, theirs[0])]
    assert calls[0] == calls[1]
    kinds = [{v.name: v.number for e in file.enum_type if e.name == "DataType" for v in e.value} for file in (ours, theirs[1])]
    assert kinds[0] == kinds[1]

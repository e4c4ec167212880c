"""`tritonclient.http`."""

from __future__ import annotations

from typing import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from conftest import TYPES, USER, Proxy, sample
from tritonclient.utils import InferenceServerException


@pytest.fixture
def client(proxy: Proxy) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(proxy.address) as client:
        yield client


def tensor(name: str, kind: str, values: np.ndarray, binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, list(values.shape), kind)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def vectors(binary: bool = True) -> list[triton.InferInput]:
    values = np.arange(3, dtype=np.float32)
    return [tensor(name, "FP32", values, binary) for name in "ab"]


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("add")
    assert client.is_model_ready("add", "1")
    assert not client.is_model_ready("absent")
    server = client.get_server_metadata()
    assert server["name"] == "confonnx"
    assert {"binary_tensor_data", "model_configuration", "statistics"} <= set(server["extensions"])
    model = client.get_model_metadata("add")
    assert (model["name"], model["versions"]) == ("add", ["1"])
    assert model["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": [-1]}


def test_config(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("identity")
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("identity", "onnxruntime", 0)
    kinds = {given["name"]: given["data_type"] for given in config["input"]}
    assert kinds["in_BYTES"] == "TYPE_STRING"
    assert kinds["in_FP16"] == "TYPE_FP16"
    assert config["output"][0]["dims"] == [-1, 2]


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_every_type_comes_back_as_it_was(client: triton.InferenceServerClient, binary: bool) -> None:
    # tritonclient has no JSON form for FP16 and BF16, neither of inputs nor of outputs.
    raw_only = {"FP16", "BF16"}
    inputs = [tensor(f"in_{name}", name, sample(name), binary or name in raw_only) for name in TYPES]
    outputs = [
        triton.InferRequestedOutput(f"out_{name}", binary_data=binary or name in raw_only) for name in TYPES
    ]
    result = client.infer("identity", inputs, outputs=outputs, request_id="seven")
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == "1"
    for name in TYPES:
        found = result.as_numpy(f"out_{name}")
        given = sample(name)
        if name == "BYTES" and not binary:
            given = np.array([[item.decode() for item in row] for row in given], dtype=np.object_)
        assert found.shape == given.shape, name
        assert (found == given).all(), name


def test_outputs_are_those_that_are_asked_for(client: triton.InferenceServerClient) -> None:
    inputs = [tensor(f"in_{name}", name, sample(name)) for name in TYPES]
    result = client.infer("identity", inputs, outputs=[triton.InferRequestedOutput("out_INT8")])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["out_INT8"]


def test_async(proxy: Proxy) -> None:
    with triton.InferenceServerClient(proxy.address, concurrency=4) as client:
        running = [client.async_infer("add", vectors()) for _ in range(16)]
        for request in running:
            assert request.get_result().as_numpy("sum").tolist() == [0, 2, 4]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_packed_requests(client: triton.InferenceServerClient, algorithm: str) -> None:
    result = client.infer(
        "add", vectors(), request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    assert result.as_numpy("sum").tolist() == [0, 2, 4]


def test_statistics(client: triton.InferenceServerClient) -> None:
    def numbers() -> tuple[int, int]:
        [found] = client.get_inference_statistics("add", "1")["model_stats"]
        assert (found["name"], found["version"]) == ("add", "1")
        stages = [found["inference_stats"][name] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
        # perf_analyzer takes the count of the stage `queue` for that of requests.
        assert {stage["count"] for stage in stages} == {found["inference_stats"]["success"]["count"]}
        assert sum(stage["ns"] for stage in stages) == found["inference_stats"]["success"]["ns"]
        return found["inference_stats"]["success"]["count"], found["inference_stats"]["fail"]["count"]

    success, fail = numbers()
    client.infer("add", vectors())
    with pytest.raises(InferenceServerException):
        client.infer("add", vectors()[:1])
    assert numbers() == (success + 1, fail + 1)
    assert {found["name"] for found in client.get_inference_statistics()["model_stats"]} == {"add", "identity"}
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'absent'"):
        client.get_inference_statistics("absent")


def test_repository(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    assert {(model["name"], model["version"], model["state"]) for model in index} == {
        ("add", "1", "READY"),
        ("identity", "1", "READY"),
    }
    client.unload_model("add")
    assert not client.is_model_ready("add")
    client.load_model("add")
    assert client.is_model_ready("add")
    assert client.infer("add", vectors()).as_numpy("sum").tolist() == [0, 2, 4]
    with pytest.raises(InferenceServerException, match="no parameters"):
        client.load_model("add", config="{}")
    with pytest.raises(InferenceServerException) as absent:
        client.load_model("absent")
    assert absent.value.status() == "404"


def test_errors_are_the_servers_own(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as absent:
        client.infer("absent", vectors())
    assert absent.value.status() == "404"
    wrong = [tensor(name, "INT32", np.arange(3, dtype=np.int32)) for name in "ab"]
    with pytest.raises(InferenceServerException, match="a") as refused:
        client.infer("add", wrong)
    assert refused.value.status() == "400"
    with pytest.raises(InferenceServerException) as missing:
        client.get_model_metadata("add", "9")
    assert missing.value.status() == "404"


def test_shared_memory_gets_tritons_refusal(client: triton.InferenceServerClient) -> None:
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status() == []
    with pytest.raises(InferenceServerException, match="Unable to open shared memory region: '/key'"):
        client.register_system_shared_memory("region", "/key", 64)
    with pytest.raises(InferenceServerException, match="region: 'region', GPUs not supported"):
        client.register_cuda_shared_memory("region", b"handle", 0, 64)
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    given = vectors()
    given[0].set_shared_memory("region", 12)
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'region'"):
        client.infer("add", given)


def test_labels_are_refused_and_not_passed_over(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("sum", class_count=2)]
    with pytest.raises(InferenceServerException, match="output 'sum': the classification extension"):
        client.infer("add", vectors(), outputs=outputs)


def test_trace_and_log_settings_get_tritons_refusal(client: triton.InferenceServerClient) -> None:
    for call in (client.get_trace_settings, lambda: client.update_trace_settings(settings={"trace_level": "OFF"})):
        with pytest.raises(InferenceServerException, match="the server does not support tracing"):
            call()
    for call in (client.get_log_settings, lambda: client.update_log_settings({"log_info": True})):
        with pytest.raises(InferenceServerException, match="the server does not support dynamic logging"):
            call()


def test_the_programs_own_token_travels_sealed(open_proxy: Proxy) -> None:
    with triton.InferenceServerClient(open_proxy.address) as client:
        with pytest.raises(InferenceServerException) as nobody:
            client.infer("add", vectors())
        assert nobody.value.status() == "401"
        headers = {"Authorization": f"Bearer {USER}"}
        assert client.infer("add", vectors(), headers=headers).as_numpy("sum").tolist() == [0, 2, 4]
        with pytest.raises(InferenceServerException) as other:
            client.get_model_metadata("identity", headers=headers)
        assert other.value.status() == "403"

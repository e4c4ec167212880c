"""`kserve`'s REST client."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable

import httpx
import numpy as np
import pytest
from conftest import FAULTS, Proxy
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def ask(use: Callable[[InferenceRESTClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(run())


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "json"])
def test_infer(proxy: Proxy, binary: bool) -> None:
    inputs = [InferInput(name, [2], "FP32") for name in "ab"]
    for given in inputs:
        given.set_data_from_numpy(np.array([1.5, 2], dtype=np.float32), binary_data=binary)
    request = InferRequest("add", inputs, request_id="nine")
    response = ask(lambda client: client.infer(proxy.url, request, "add"))
    assert (response.model_name, response.id) == ("add", "nine")
    assert response.outputs[0].as_numpy().tolist() == [3, 4]


def test_health(proxy: Proxy) -> None:
    assert ask(lambda client: client.is_server_live(proxy.url)) is True
    assert ask(lambda client: client.is_server_ready(proxy.url)) is True
    assert ask(lambda client: client.is_model_ready(proxy.url, "add")) is True
    assert ask(lambda client: client.is_model_ready(proxy.url, "absent")) is False


def test_errors(proxy: Proxy) -> None:
    request = {"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1]}]}
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        ask(lambda client: client.infer(proxy.url, request, "add"))


def ask_grpc(proxy: Proxy, use: Callable[[InferenceGRPCClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with InferenceGRPCClient(proxy.grpc) as client:
            return await use(client)

    return asyncio.run(run())


@pytest.mark.parametrize("binary", [True, False], ids=["raw", "typed"])
def test_infer_by_grpc(proxy: Proxy, binary: bool) -> None:
    inputs = [InferInput(name, [2], "FP32") for name in "ab"]
    for given in inputs:
        given.set_data_from_numpy(np.array([1.5, 2], dtype=np.float32), binary_data=binary)
    request = InferRequest("add", inputs, request_id="nine")
    response = ask_grpc(proxy, lambda client: client.infer(request))
    assert (response.model_name, response.id) == ("add", "nine")
    assert response.outputs[0].as_numpy().tolist() == [3, 4]


def test_health_by_grpc(proxy: Proxy) -> None:
    assert ask_grpc(proxy, lambda client: client.is_server_live()) is True
    assert ask_grpc(proxy, lambda client: client.is_server_ready()) is True
    assert ask_grpc(proxy, lambda client: client.is_model_ready("add")) is True


@pytest.mark.parametrize("what", FAULTS)
def test_what_goes_wrong_is_an_error_of_its_own_kind(faulty: dict[str, Proxy], what: str) -> None:
    kind, status, code = FAULTS[what]
    inputs = [InferInput(name, [1], "FP32") for name in "ab"]
    for given in inputs:
        given.set_data_from_numpy(np.array([1.5], dtype=np.float32), binary_data=True)
    request = InferRequest("add", inputs)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        ask(lambda client: client.infer(faulty[what].url, request, "add"))
    assert refused.value.response.status_code == status
    assert refused.value.response.json()["code"] == kind
    with pytest.raises(Exception) as over_grpc:
        ask_grpc(faulty[what], lambda client: client.infer(request))
    assert code in str(over_grpc.value), repr(over_grpc.value)

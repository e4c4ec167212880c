"""Models with a state, asked by `tritonclient` as it asks Triton's stateful models."""

from __future__ import annotations

import queue
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from conftest import ROOT, Proxy, Server
from tritonclient.utils import InferenceServerException

MODEL = ROOT / "crates" / "confonnx-engine" / "tests" / "data" / "running_sum.onnx"


@pytest.fixture(scope="module")
def proxy(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> Proxy:
    return start_proxy("--url", start_server(MODEL, "--model-name", "sum").url, "--enclave-allow-debug")


@pytest.fixture(params=["http", "grpc"])
def asked(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Callable[..., list[float]]]:
    module: Any = getattr(tritonclient, request.param)
    where = proxy.url.removeprefix("http://") if request.param == "http" else proxy.grpc
    with module.InferenceServerClient(where) as client:

        def ask(values: list[float], sequence: int | str, start: bool = False, end: bool = False) -> list[float]:
            found = client.infer("sum", inputs(module, values, start), sequence_id=sequence, sequence_start=start, sequence_end=end)
            assert found.as_numpy("total_next") is None, "the state is the server's"
            said: list[float] = found.as_numpy("y")[0].tolist()
            return said

        yield ask


def inputs(module: Any, values: list[float], start: bool) -> list[Any]:
    x = module.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([values], np.float32))
    if not start:
        return [x]
    scale = module.InferInput("scale", [1], "FP32")
    scale.set_data_from_numpy(np.array([1], np.float32))
    return [x, scale]


def test_a_sequence(asked: Callable[..., list[float]]) -> None:
    one, other = secrets.randbits(63) | 1 << 62, f"a sequence of words {secrets.token_hex(8)}"
    assert asked([1, 2], one, start=True) == [1, 2]
    assert asked([5, 5], other, start=True) == [5, 5]
    assert asked([1, 2], one) == [2, 4]
    assert asked([0, 1], other, end=True) == [5, 6]
    assert asked([1, 0], one) == [3, 4]
    with pytest.raises(InferenceServerException, match="sequence_start"):
        asked([1, 1], other)
    with pytest.raises(InferenceServerException, match="random"):
        asked([1, 1], 7, start=True)


def test_frames_of_a_stream_go_one_after_another(proxy: Proxy) -> None:
    came: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(proxy.grpc) as client:
        client.start_stream(lambda result, error: came.put((result, error)))
        sequence = secrets.randbits(63) | 1 << 62
        for frame in range(30):
            start, end = frame == 0, frame == 29
            given = inputs(tritonclient.grpc, [1, frame], start)
            client.async_stream_infer("sum", given, sequence_id=sequence, sequence_start=start, sequence_end=end)
        total = 0
        for frame in range(30):
            result, error = came.get(timeout=60)
            assert error is None, error
            total += frame
            assert result.as_numpy("y")[0].tolist() == [frame + 1, total]
        client.stop_stream()

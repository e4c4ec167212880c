"""What people type first at a Python prompt: names, context managers, lists and numbers, wrong arguments."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import confonnx
import digits
import numpy as np
import pytest
from conftest import Server
from confonnx import AsyncClient, AttestationError, Client, RequestError, RequestTimeoutError, _tensor
from confonnx.client import Check
from confonnx.hash_model import hash_model

NOWHERE = "http://127.0.0.1:1/"


def test_the_package_names_what_is_needed() -> None:
    assert confonnx.Client is confonnx.client.Client
    assert all(hasattr(confonnx, name) for name in confonnx.__all__)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_keyword_that_there_is_not_is_named_with_the_one_meant(kind: type[Client] | type[AsyncClient]) -> None:
    with pytest.raises(TypeError) as error:
        kind(NOWHERE, enclave_hashes="ab")  # type: ignore[arg-type]
    assert str(error.value) == (
        f"{kind.__name__}() got an unexpected keyword argument 'enclave_hashes'; did you mean 'enclave_hash'?"
    )
    with pytest.raises(TypeError, match="'zzz'; there are url, auth,"):
        kind(NOWHERE, zzz=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"url": 7}, TypeError, "url: expected str, found int"),
        ({"auth": "x"}, TypeError, "auth: expected a dict"),
        ({"auth_key": "tok\n"}, ValueError, r"auth_key: .*use \.strip"),
        ({"auth_key": ""}, ValueError, "auth_key: "),
        ({"auth": {"user": "a:b", "pass": "c"}}, ValueError, "auth\\['user'\\]: "),
        ({"enclave_hash": 7}, TypeError, "enclave_hash: expected str or a list"),
        ({"enclave_hash": []}, ValueError, "enclave_hash: expected at least one"),
        ({"enclave_model_hash": [7]}, TypeError, "enclave_model_hash: expected str, found int"),
        ({"model_version": 1.5}, TypeError, "model_version: expected str, found float"),
        ({"model": 1}, TypeError, "model: expected str, found int"),
        ({"timeout": "1"}, TypeError, "timeout: expected seconds, found str"),
        ({"sessions": 1}, TypeError, "sessions: expected True or False"),
        ({"retries": 1.5}, TypeError, "retries: expected a whole number, found float"),
        ({"retries": True}, TypeError, "retries: expected a whole number, found bool"),
        ({"retries": -1}, ValueError, "retries: expected 0 or more"),
        ({"ca_file": 1}, TypeError, "ca_file: expected str, found int"),
        ({"kem": 1}, TypeError, "kem: expected str"),
        ({"proxy": 1}, TypeError, "proxy: expected str, found int"),
        ({"progress": 1}, TypeError, "progress: expected a function, found int"),
        ({"proxy": "socks5://p:1"}, ValueError, "proxy: expected an HTTP proxy"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(wrong: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Client(**{"url": NOWHERE, "enclave_allow_debug": True, **wrong})  # type: ignore[arg-type]


def test_a_message_about_a_key_does_not_quote_it() -> None:
    with pytest.raises(ValueError) as error:
        Client(NOWHERE, auth_key="s3cret\n", enclave_allow_debug=True)
    assert "s3cret" not in str(error.value)


def test_wrong_arguments_of_a_call_are_named() -> None:
    client = Client(NOWHERE, enclave_allow_debug=True)
    with pytest.raises(TypeError, match=r"outputs: .*outputs=\['probabilities'\]"):
        client.predict({"image": np.zeros(1)}, "probabilities")
    with pytest.raises(TypeError, match="data: expected names of inputs as keys, found 1"):
        client.predict({1: np.zeros(1)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="key: expected str, found int"):
        client.provision_model_key(5)  # type: ignore[arg-type]


def test_several_hashes_are_each_accepted(tmp_path: Path) -> None:
    Client(NOWHERE, enclave_hash=["ab" * 32, "cd" * 32], enclave_model_hash=["01" * 32, "digits=" + "02" * 32])
    info = tmp_path / "enclave_info.json"
    info.write_text('{"mrenclave": "' + "ab" * 32 + '"}')
    Client(NOWHERE, enclave_hash=[info, "cd" * 32])


def test_a_closed_client_says_so() -> None:
    with Client(NOWHERE, enclave_allow_debug=True) as client:
        assert "nothing verified yet" in repr(client)
    client.close()
    assert repr(client) == "<Client: closed>"
    for call in (lambda: client.predict({"x": np.zeros(1)}), client.attest, lambda: client.url):
        with pytest.raises(ValueError, match="closed"):
            call()

    async def run() -> None:
        async with AsyncClient(NOWHERE, enclave_allow_debug=True) as other:
            pass
        with pytest.raises(ValueError, match="closed"):
            await other.attest()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("type_", "value", "found"),
    [
        ("FP32", [[0.1, 2]], np.float32([[0.1, 2]])),
        ("FP32", 7, np.float32(7)),
        ("FP16", [1, 2048], np.float16([1, 2048])),
        ("FP32", [float("nan"), float("inf")], np.float32([np.nan, np.inf])),
        ("INT64", [1, 2], np.int64([1, 2])),
        ("INT32", [1.0, -2.0], np.int32([1, -2])),
        ("UINT8", [0, 255], np.uint8([0, 255])),
        ("BOOL", [True, False], np.bool_([True, False])),
        ("UINT64", [2**64 - 1], np.uint64([2**64 - 1])),
        ("FP32", [], np.float32([])),
    ],
    ids=str,
)
def test_lists_and_numbers_take_the_models_type(type_: str, value: object, found: np.ndarray) -> None:
    (tensor,) = _tensor.tensors({"x": value}, {"x": type_})
    assert (tensor.datatype, tensor.shape, tensor.data) == (type_, found.shape, found.tobytes())


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("FP32", [2**24 + 1]),
        ("FP32", [1e39]),
        ("FP16", [2049]),
        ("INT64", [1.5]),
        ("INT64", [float("nan")]),
        ("UINT8", [256]),
        ("UINT8", [-1]),
        ("INT64", [2**63]),
        ("BOOL", [0, 1]),
        ("UINT64", [2**64]),
        ("FP32", [[1, 2], [3]]),
    ],
    ids=str,
)
def test_what_the_models_type_cannot_hold_is_a_value_error_that_names_the_input(type_: str, value: object) -> None:
    with pytest.raises(ValueError, match='"x": '):
        _tensor.tensors({"x": value}, {"x": type_})


def test_notebooks_get_a_table_and_the_insecure_tee_no_praise() -> None:
    checks = [Check("nonce", "ours", "<b>theirs</b>", "failed"), Check("age", "anything", "0 s", "info")]
    shown = AttestationError("refused", checks, True)._repr_html_()
    assert "&lt;b&gt;theirs" in shown and "<b>theirs" not in shown
    insecure = confonnx.Attestation("insecure", {}, checks, "")
    assert "proves nothing" in insecure._repr_html_() and "Verified" not in insecure._repr_html_()
    assert "proves nothing" in repr(insecure) and "verified" not in repr(insecure)
    assert "Verified: snp" in confonnx.Attestation("snp", {}, checks, "")._repr_html_()


@pytest.mark.parametrize("calls", [40])
def test_asynchronous_timeouts_are_real_and_take_no_threads(silent_server: str, calls: int) -> None:
    """Each of 40 calls to a server that never answers ends by itself; none waits for a thread of the application's."""

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(NoThreads())
        async with AsyncClient(silent_server, enclave_allow_debug=True, timeout=1) as client:
            before = threading.active_count()
            waiting = [asyncio.create_task(client.predict({"image": np.zeros(1)})) for _ in range(calls)]
            await asyncio.sleep(0.2)
            assert threading.active_count() == before
            done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error) for error in done] == [RequestTimeoutError] * calls

    asyncio.run(run())


class NoThreads(ThreadPoolExecutor):
    """An executor that must not be used."""

    def submit(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("a thread of the application's was asked for")


def test_cancelling_gives_the_request_up() -> None:
    async def run() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            listener.setblocking(False)
            loop = asyncio.get_running_loop()
            client = AsyncClient(f"http://127.0.0.1:{listener.getsockname()[1]}", enclave_allow_debug=True, timeout=50)
            call = asyncio.create_task(client.predict({"image": np.zeros(1)}))
            connection, _ = await loop.sock_accept(listener)
            with closing(connection):
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                # The server reads what was sent, and then the end of the connection.
                while await loop.sock_recv(connection, 65536):
                    pass

    asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.e2e
def test_one_array_or_a_list_will_do_and_the_repr_says_what_was_verified(server: Server) -> None:
    with Client(server.url, enclave_allow_debug=True, model_version=1) as client:
        assert client.ready()
        image = digits.images()[:1]
        expected = client.predict({"image": image})["probabilities"]
        for data in (image, image.tolist(), {"image": image.tolist()}):
            np.testing.assert_array_equal(client.predict(data)["probabilities"], expected)
        client.attest()
        assert "proves nothing" in repr(client) and hash_model(digits.MODEL)[:12] in repr(client)
        with pytest.raises(RequestError, match=r'data\["image"\] = data\["image"\].astype\("float32"\)') as error:
            client.predict({"image": image.astype(np.float64)})
        assert error.value.status == 400
        for nothing in (None, {"image": None}):
            with pytest.raises(TypeError, match="found None"):
                client.predict(nothing)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match='"image": .*equal length'):
            client.predict([[1, 2], [3]])


@pytest.mark.e2e
def test_the_asynchronous_client_does_the_same(server: Server) -> None:
    async def run() -> None:
        async with AsyncClient(server.url, enclave_allow_debug=True) as client:
            assert await client.ready()
            image = digits.images()[:1]
            expected = (await client.predict({"image": image}))["probabilities"]
            np.testing.assert_array_equal((await client.predict(image.tolist()))["probabilities"], expected)
            with pytest.raises(RequestError, match="astype"):
                await client.predict(image.astype(np.float64))

    asyncio.run(run())


@pytest.mark.e2e
def test_clients_may_go_while_their_last_answers_come(server: Server) -> None:
    """A thread that drops a client holds the GIL, which the client's thread needs to hand an answer over."""
    code = """
import asyncio, sys, numpy as np
from confonnx import AsyncClient
async def ask():
    async with AsyncClient(sys.argv[1], enclave_allow_debug=True) as client:
        image = np.zeros((1, 1, 28, 28), np.float32)
        return await asyncio.gather(*(client.predict({"image": image}) for _ in range(8)))
for _ in range(40):
    assert len(asyncio.run(ask())) == 8
"""
    subprocess.run([sys.executable, "-c", code, server.url], check=True, timeout=300)

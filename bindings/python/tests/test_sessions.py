"""Resumptions of the server against an implementation of the specification in Python, and of clients that use them."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import digits
import peer
from conftest import ROOT, Server
from confonnx.client import AsyncClient, Client

SESSION = ("message/confonnx-session-req", "message/confonnx-session-res")
VECTORS = sorted((ROOT / "vectors" / "session").glob("exchange-*/case.json"))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.parent.name)
def test_the_vectors_by_the_specification_alone(path: Path) -> None:
    case = json.loads(path.read_text())
    opened = case["session"]
    grant = opened["grant"].split(";")[0]
    id = base64.urlsafe_b64decode(grant + "==")
    assert id.hex() == opened["id"]
    header = bytes.fromhex(opened["request"]["sealed"])[:7]
    session = peer.Session(header, id, bytes.fromhex(case["session_secret"]))
    assert len(case["messages"]) == 2
    for message in case["messages"]:
        there, back = ({name: bytes.fromhex(value) for name, value in message[way].items()} for way in ("request", "reply"))
        plaintext, reply = session.open(there["sealed"])
        assert plaintext == there["plaintext"] and reply.open(back["sealed"]) == back["plaintext"]
        sealed, reply = session.seal(there["plaintext"], bytes.fromhex(message["salt"]))
        assert sealed == there["sealed"]
        assert reply.seal(back["plaintext"], bytes.fromhex(message["reply_nonce"])) == back["sealed"]


def post(server: Server, sealed: bytes, media: tuple[str, str]) -> bytes | str:
    """The server's answer to a sealed message: the sealed reply, or the problem's code."""
    url = server.url + "/.well-known/ohttp-gateway"
    sent = urllib.request.Request(url, sealed, {"content-type": media[0]})
    try:
        with urllib.request.urlopen(sent, timeout=60) as answer:
            assert answer.headers["content-type"] == media[1]
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as refused:
        code: str = json.load(refused)["code"]
        return code


@pytest.mark.e2e
@pytest.mark.parametrize("aead", peer.KEY_LENGTHS)
def test_a_peer_resumes_a_session_of_a_real_server(server: Server, aead: int) -> None:
    with urllib.request.urlopen(f"{server.url}/.well-known/confonnx/attestation?nonce={os.urandom(32).hex()}") as answer:
        listed = json.load(answer)["key_configs"]
    key = peer.Key.of(base64.urlsafe_b64decode(listed + "=" * (-len(listed) % 4)))
    request, reply, context = key.seal(aead, peer.request("/v2", {"confonnx-session": "offer"}))
    answered = post(server, request, ("message/ohttp-req", "message/ohttp-res"))
    assert isinstance(answered, bytes)
    status, fields, _ = peer.response(reply.open(answered))
    assert status == 200
    session = peer.Session.granted(request, context, fields["confonnx-session"])

    image = digits.images()[:1]
    data = {"name": "image", "shape": list(image.shape), "datatype": "FP32", "data": image.flatten().tolist()}
    infer = peer.request("/v2/models/digits/infer", {}, json.dumps({"inputs": [data]}).encode())
    results = []
    for message in [infer, infer, peer.request("/nowhere")]:
        request, reply = session.seal(message)
        answered = post(server, request, SESSION)
        assert isinstance(answered, bytes)
        results.append(peer.response(reply.open(answered)))
        assert post(server, request, SESSION) == "request-replayed"
        assert post(server, request[:-1] + bytes([request[-1] ^ 1]), SESSION) == "request-replayed"
    assert [status for status, _, _ in results] == [200, 200, 404]
    expected = Client(server.url, enclave_allow_debug=True).predict({"image": image})["probabilities"]
    for _, _, body in results[:2]:
        np.testing.assert_allclose(json.loads(body)["outputs"][0]["data"], expected.flatten(), rtol=1e-6)
    session.id = os.urandom(16)
    assert post(server, session.seal(infer)[0], SESSION) == "session-unknown"


def resumed(server: Server) -> int:
    """How many requests the server answered by resumptions."""
    assert server.admin
    with urllib.request.urlopen(server.admin + "/metrics") as page:
        lines = page.read().decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("confonnx_resumed_requests_total "))


@pytest.mark.e2e
def test_clients_resume_unless_they_are_told_not_to(start_server: Callable[..., Server]) -> None:
    server = start_server(admin=True)
    image = digits.images()[:1]
    plain = Client(server.url, enclave_allow_debug=True, sessions=False)
    expected = [plain.predict({"image": image})["probabilities"] for _ in range(3)][0]
    assert resumed(server) == 0
    client = Client(server.url, enclave_allow_debug=True)
    for _ in range(4):
        np.testing.assert_array_equal(client.predict({"image": image})["probabilities"], expected)
    assert resumed(server) >= 2

    async def several() -> None:
        asynchronous = AsyncClient(server.url, enclave_allow_debug=True)
        await asynchronous.predict({"image": image})
        await asynchronous.predict({"image": image})
        answers = await asyncio.gather(*(asynchronous.predict({"image": image}) for _ in range(8)))
        for answer in answers:
            np.testing.assert_array_equal(answer["probabilities"], expected)

    before = resumed(server)
    asyncio.run(several())
    assert resumed(server) >= before + 8


@pytest.mark.e2e
def test_a_relay_gets_the_sealed_requests(server: Server) -> None:
    image = digits.images()[:1]
    asked: list[str] = []

    class Relay(http.server.BaseHTTPRequestHandler):
        def forward(self, path: str, body: bytes | None) -> None:
            asked.append(self.command)
            headers = {"content-type": self.headers["content-type"]} if body is not None else {}
            with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers)) as answer:
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers["content-type"])
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def do_GET(self) -> None:
            self.forward("/.well-known/confonnx/attestation?" + self.path.partition("?")[2], None)

        def do_POST(self) -> None:
            self.forward("/.well-known/ohttp-gateway", self.rfile.read(int(self.headers["content-length"])))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        # This client reaches the server through the relay alone.
        relayed = Client("http://models.invalid", enclave_allow_debug=True, relay=f"http://127.0.0.1:{relay.server_port}/relay")
        assert relayed.predict({"image": image})["probabilities"].shape == (1, 10)
        relay.shutdown()
    assert asked == ["GET", "POST"]
    nowhere = Client(server.url, enclave_allow_debug=True, relay="http://127.0.0.1:1/")
    with pytest.raises(ConnectionError, match="127.0.0.1:1"):
        nowhere.predict({"image": image})
    with pytest.raises(ValueError, match="ftp"):
        Client(server.url, enclave_allow_debug=True, relay="ftp://relay")


@pytest.mark.e2e
def test_a_forked_client_and_its_parent_both_go_on(server: Server) -> None:
    client = Client(server.url, enclave_allow_debug=True)
    image = digits.images()[:1]
    expected = [client.predict({"image": image})["probabilities"] for _ in range(3)][0]
    reader, writer = os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(4):
                    np.testing.assert_array_equal(client.predict({"image": image})["probabilities"], expected)
                del client
                os.write(writer, b"+")
            except BaseException as err:
                os.write(writer, repr(err).encode())
            finally:
                os._exit(0)
        children.append(child)
        np.testing.assert_array_equal(client.predict({"image": image})["probabilities"], expected)
    for child in children:
        os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as results:
        assert results.read() == b"++"
    for _ in range(3):
        np.testing.assert_array_equal(client.predict({"image": image})["probabilities"], expected)
    assert client.key_invalid_count == 0

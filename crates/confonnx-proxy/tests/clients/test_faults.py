"""Each reason why there is no answer is an error of its own, and nothing is sent in the clear meanwhile."""

from __future__ import annotations

import hashlib
import http.client
import json
import platform
import signal
import socket
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from conftest import DIGITS, OPERATOR, Proxy, Recorder, Server, executable, free_port, stop

SECRET = "1234.5"
REQUEST = json.dumps(
    {"inputs": [{"name": name, "shape": [1], "datatype": "FP32", "data": [float(SECRET)]} for name in "ab"]}
)


def ask(proxy: Proxy, path: str = "/v2/models/add/infer", token: str = OPERATOR, **fields: str) -> tuple[int, Any, str]:
    """Status and body of an answer, and the proxy's word for what went wrong."""
    request = urllib.request.Request(proxy.url + path, data=REQUEST.encode() if path.endswith("infer") else None)
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    for name, value in fields.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read()), ""
    except urllib.error.HTTPError as answer:
        return answer.code, json.loads(answer.read()), answer.headers.get("confonnx-proxy-error", "")


def test_a_wrong_hash(start_proxy: Callable[..., Proxy], server: Server) -> None:
    proxy = start_proxy("--url", server.url, "--enclave-hash", "ab" * 32)
    status, body, kind = ask(proxy)
    assert (status, kind, body["code"]) == (503, "server-not-trusted", "server-not-trusted")
    assert body["checks"] and all(check["outcome"] in ("failed", "undecided") for check in body["checks"])
    assert "abab" in body["error"]
    assert ask(proxy, "/v2/health/live")[0] == 200
    assert ask(proxy, "/v2/health/ready")[0] == 503


def test_a_wrong_model(start_proxy: Callable[..., Proxy], server: Server, repository: Path) -> None:
    flags = ["--url", server.url, "--enclave-allow-debug", "--enclave-model-hash"]
    status, body, kind = ask(start_proxy(*flags, f"add={'cd' * 32}"))
    assert (status, kind) == (503, "server-not-trusted")
    assert [check["name"] for check in body["checks"]] == ["model hash"]
    assert "cdcd" in body["error"]
    # The server has the model that is pinned, and a call names another one.
    identity = hashlib.sha256((repository / "identity/1/model.onnx").read_bytes()).hexdigest()
    proxy = start_proxy(*flags, identity)
    assert ask(proxy, "/v2/models/identity")[0] == 200
    status, body, kind = ask(proxy)
    assert (status, kind) == (503, "model-not-trusted")
    assert identity in body["error"]


def test_no_server(start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy("--url", f"http://127.0.0.1:{free_port()}", "--enclave-allow-debug", "--retries", "0")
    assert ask(proxy)[::2] == (502, "server-unreachable")


def test_a_slow_server_and_what_it_gets(start_proxy: Callable[..., Proxy]) -> None:
    recorder = Recorder()
    proxy = start_proxy("--url", recorder.url, "--enclave-allow-debug", "--timeout", "0.5")
    assert ask(proxy)[::2] == (504, "server-slow")
    assert b"/.well-known/confonnx/attestation?nonce=" in recorder.got
    for plain in (b"/v2/", b"inputs", SECRET.encode(), OPERATOR.encode()):
        assert plain not in recorder.got


def test_an_answer_that_is_not_a_servers(start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    port = free_port()
    command = ["python3", "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        proxy = start_proxy("--url", f"http://127.0.0.1:{port}", "--enclave-allow-debug", "--retries", "5")
        assert ask(proxy)[::2] == (502, "answer-invalid")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def swapped(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy], tmp_path: Path) -> Iterator[tuple[Server, Proxy]]:
    server = start_server(DIGITS)
    policy = tmp_path / "policy.toml"
    digest = hash_of(server)
    policy.write_text(f'allow_debug = true\n[server]\nbuild_sha256 = ["{digest}"]\n')
    yield server, start_proxy("--url", server.url, "--policy", policy)


def hash_of(server: Server) -> str:
    return hashlib.sha256(executable("confonnx-server").read_bytes()).hexdigest()


def test_another_server_in_its_place(swapped: tuple[Server, Proxy], start_server: Callable[..., Server], tmp_path: Path) -> None:
    server, proxy = swapped
    assert ask(proxy, "/v2/models/digits")[0] == 200
    stop(server.process)
    # A program with one byte more is another program.
    other = tmp_path / "confonnx-server"
    other.write_bytes(executable("confonnx-server").read_bytes() + b"\0")
    other.chmod(0o755)
    start_server(DIGITS, port=server.port, program=other)
    status, body, kind = ask(proxy, "/v2/models/digits")
    assert (status, kind) == (503, "server-changed")
    assert hash_of(server) in body["error"]
    assert [check["name"] for check in body["checks"]]


def test_keys_that_expire_are_renewed_unseen(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> None:
    server = start_server(DIGITS, "--key-rollover-interval", "60", "--key-grace", "1")
    proxy = start_proxy("--url", server.url, "--enclave-allow-debug")
    assert ask(proxy, "/v2/models/digits")[0] == 200
    # A server that is started again knows none of the old keys.
    stop(server.process)
    start_server(DIGITS, port=server.port)
    assert ask(proxy, "/v2/models/digits")[0] == 200
    metrics = urllib.request.urlopen(proxy.url + "/metrics").read().decode()
    assert 'confonnx_proxy_key_unknown_total{upstream="server"} 1' in metrics


def test_a_key_that_expired_is_used_no_more(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy], tmp_path: Path) -> None:
    admin = free_port()
    server = start_server(DIGITS, "--admin-port", str(admin))

    def received() -> list[str]:
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics").read().decode()
        return [line for line in metrics.splitlines() if line.startswith("confonnx_received_bytes_total")]

    clock = tmp_path / "clock"
    clock.write_text("0")
    proxy = start_proxy("--url", server.url, "--enclave-allow-debug", clock=clock)
    assert ask(proxy, "/v2/models/digits")[0] == 200
    before = received()
    assert before
    # Past every key that the server has, which has no reason to make another.
    clock.write_text(str(2 * 86400))
    for _ in range(3):
        status, body, kind = ask(proxy, "/v2/models/digits")
        assert (status, kind, body["code"]) == (503, "key-unusable", "key-unusable")
        assert "was accepted until Unix time" in body["error"]
        assert ask(proxy, "/v2/health/ready")[::2] == (503, "key-unusable")
    assert received() == before, "nothing is sealed to a key that expired"
    clock.write_text("0")
    assert ask(proxy, "/v2/models/digits")[0] == 200


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves what they keep")
def test_large_requests_find_the_memory_of_those_before(proxy: Proxy) -> None:
    values = b"\0" * 600_000
    tensor = {"shape": [150_000], "datatype": "FP32", "parameters": {"binary_data_size": len(values)}}
    head = json.dumps({"inputs": [{"name": name, **tensor} for name in "ab"]}).encode()

    def some(number: int) -> int:
        """Pages that the proxy had to be given."""
        def given() -> int:
            # proc(5): minflt is the tenth.
            return int(Path(f"/proc/{proxy.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[7])

        before = given()
        for _ in range(number):
            request = urllib.request.Request(proxy.url + "/v2/models/add/infer", data=head + values + values)
            request.add_header("Inference-Header-Content-Length", str(len(head)))
            request.add_header("Authorization", f"Bearer {OPERATOR}")
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200 and answer.read()
        return given() - before

    some(10)
    # One buffer of such a request has three hundred.
    assert some(10) < 10 * 100


def test_pages_from_elsewhere_are_not_answered(open_proxy: Proxy) -> None:
    assert ask(open_proxy, "/v2", Origin="http://evil.example")[0] == 403
    assert ask(open_proxy, "/v2", Host="evil.example")[0] == 421
    assert ask(open_proxy, "/v2", Host="localhost:1")[0] == 200


def test_only_this_machine(server: Server) -> None:
    command = [str(executable("confonnx")), "proxy", "--url", server.url, "--enclave-allow-debug"]
    done = subprocess.run([*command, "--listen", "0.0.0.0:0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "expected an address of this machine alone" in done.stderr


def test_models_have_servers_of_their_own(
    start_server: Callable[..., Server], start_proxy: Callable[..., Proxy], server: Server, tmp_path: Path
) -> None:
    digits = start_server(DIGITS)
    (tmp_path / "open.toml").write_text('allow_debug = true\n')
    (tmp_path / "closed.toml").write_text(f'allow_debug = true\nenclave_hashes = ["{"ab" * 32}"]\n')
    (tmp_path / "token").write_text(OPERATOR)
    config = tmp_path / "proxy.toml"
    config.write_text(
        f"""
[[upstream]]
name = "digits"
url = "{digits.url}"
policy = "open.toml"
models = ["digi*"]

[[upstream]]
name = "vectors"
url = "{server.url}"
policy = "open.toml"
models = ["add"]
auth_key_file = "token"

[[upstream]]
name = "refused"
url = "{server.url}"
policy = "closed.toml"
path = "/elsewhere"
"""
    )
    proxy = start_proxy("--config", config)
    assert ask(proxy, token="")[0] == 200
    assert ask(proxy, "/v2/models/digits", token="")[0] == 200
    status, body, _ = ask(proxy, "/v2/models/identity")
    assert (status, body["error"]) == (404, "no server of this proxy is for model identity")
    assert ask(proxy, "/elsewhere/v2/models/add")[::2] == (503, "server-not-trusted")
    request = urllib.request.Request(proxy.url + "/v2/repository/index", method="POST")
    names = [model["name"] for model in json.load(urllib.request.urlopen(request))]
    assert names == ["digits", "add"]


def test_a_program_is_started_and_its_end_is_the_proxys(server: Server) -> None:
    script = 'import os, urllib.request; urllib.request.urlopen(os.environ["CONFONNX_PROXY_URL"] + "/v2/health/live"); raise SystemExit(7)'
    command = [str(executable("confonnx")), "proxy", "--url", server.url, "--enclave-allow-debug", "--listen", "127.0.0.1:0"]
    done = subprocess.run([*command, "--exec", "python3", "-c", script], timeout=60, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr


def test_what_runs_is_finished_before_the_end(start_proxy: Callable[..., Proxy]) -> None:
    recorder = Recorder()
    proxy = start_proxy("--url", recorder.url, "--enclave-allow-debug", "--timeout", "2")
    # Forgets what the proxy asked at its start.
    recorder.got = b""
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(ask(proxy)[0]))
    thread.start()
    while b"nonce" not in recorder.got:
        time.sleep(0.02)
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(30) == 0
    thread.join()
    assert answers == [504]


def test_a_unix_socket_is_its_owners(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    # A socket's file on which nobody listens any more is replaced.
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    command = [str(executable("confonnx")), "proxy", "--url", server.url, "--enclave-allow-debug", "--socket", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "proxy on unix:" not in process.stderr.readline():
            assert process.poll() is None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("POST", "/v2/models/add/infer", REQUEST, {"Authorization": f"Bearer {OPERATOR}"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["outputs"][0]["data"]) == (200, [2 * float(SECRET)])
        connection.close()
        assert stop(process) == 0
    assert not path.exists()

"""Real servers and real proxies for published clients, unmodified, which know nothing of either."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[4]
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
START_SECONDS = 60

# For each type OIP's name, ONNX's type, and NumPy's type of the arrays that tritonclient takes.
TYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BYTES": (TensorProto.STRING, np.object_),
}


def sample(name: str) -> np.ndarray:
    """Two values of a type: its extremes, where it has any."""
    dtype = TYPES[name][1]
    if name == "BOOL":
        return np.array([[True, False]])
    if name == "BYTES":
        return np.array([["é".encode(), b""]], dtype=np.object_)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max]], dtype=dtype)
    return np.array([[-1.5, 0.25]], dtype=dtype)


def write_identity(folder: Path) -> None:
    """A model that returns its inputs, one of each type."""
    inputs = [helper.make_tensor_value_info(f"in_{name}", kind, ["n", 2]) for name, (kind, _) in TYPES.items()]
    outputs = [helper.make_tensor_value_info(f"out_{name}", kind, ["n", 2]) for name, (kind, _) in TYPES.items()]
    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES]
    write(folder, nodes, inputs, outputs)


def write_add(folder: Path) -> None:
    """A model that adds two vectors."""
    take = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "ab"]
    give = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n"])]
    write(folder, [helper.make_node("Add", ["a", "b"], ["sum"])], take, give)


def write(folder: Path, nodes: list, inputs: list, outputs: list) -> None:
    graph = helper.make_graph(nodes, folder.name, inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "1").mkdir(parents=True)
    onnx.save(model, folder / "1" / "model.onnx")


@dataclass
class Server:
    """A running confonnx-server."""

    url: str
    port: int
    process: subprocess.Popen[bytes]


@dataclass
class Proxy:
    """A running `confonnx proxy`."""

    url: str
    grpc: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def address(self) -> str:
        """The proxy's address for gRPC, without http://."""
        return self.url.removeprefix("http://")


class Recorder:
    """Listens where a server should, keeps what it gets and never answers."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.got = b""
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.read, args=(connection,), daemon=True).start()

    def read(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 16):
                self.got += data


def executable(name: str) -> Path:
    """The path of the newest build of `name`, or of the one beside `CONFONNX_SERVER`."""
    if given := os.environ.get("CONFONNX_SERVER"):
        return Path(given).with_name(name)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for profile in ("debug", "release") if (path := target / profile / name).exists()]
    if not built:
        pytest.fail(f"{name} is not built: run `make test-proxy`")
    return max(built, key=lambda path: path.stat().st_mtime)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"it stopped with status {process.returncode}:\n{log.read_text()}")
        with contextlib.suppress(OSError):
            if what():
                return
        time.sleep(0.05)
    pytest.fail(f"it was not there within {START_SECONDS} s:\n{log.read_text()}")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_identity(folder / "identity")
    write_add(folder / "add")
    return folder


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts a server with a model or a repository of them; all are killed at the end."""
    logs = tmp_path_factory.mktemp("servers")
    started: list[subprocess.Popen[bytes]] = []

    def start(models: Path, *flags: str, port: int | None = None, program: Path | None = None) -> Server:
        port = port or free_port()
        log = logs / f"server{len(started)}.log"
        kind = "--model-repository" if models.is_dir() else "--model-path"
        command = [str(program or executable("confonnx-server")), kind, str(models), "--address", "127.0.0.1"]
        command += ["--http-port", str(port), "--debug", *flags]
        command += [] if "--admin-port" in flags else ["--admin-port", "0"]
        if library := next((ROOT / ".cache" / "onnxruntime").glob("**/libonnxruntime.so*"), None):
            command += ["--onnxruntime-library", str(library)]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: urllib.request.urlopen(url, timeout=5).read() == b"Healthy", process, log)
        return Server(url, port, process)

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def start_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Proxy]]:
    """Starts a proxy with further flags; all are killed at the end."""
    logs = tmp_path_factory.mktemp("proxies")
    started: list[subprocess.Popen[str]] = []

    def start(*flags: str | Path, clock: Path | None = None) -> Proxy:
        log = logs / f"proxy{len(started)}.log"
        environment = {**os.environ, "LD_PRELOAD": str(moving_clock()), "CLOCK_MOVED": str(clock)} if clock else None
        command = [str(executable("confonnx")), "proxy", *map(str, flags)]
        command += ["--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"]
        with log.open("w") as file:
            process = subprocess.Popen(command, stderr=file, text=True, env=environment)
        started.append(process)
        where = re.compile(r"proxy on (http://\S+) and http://(\S+)")
        wait_for(lambda: where.search(log.read_text()) is not None, process, log)
        found = where.search(log.read_text())
        assert found
        return Proxy(found[1], found[2], process, log)

    yield start
    for process in started:
        process.kill()
        process.wait()


@functools.cache
def moving_clock() -> Path:
    """What moves a program's time of day (clock.c)."""
    library = Path(tempfile.mkdtemp()) / "clock.so"
    source = Path(__file__).parent / "clock.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return library


OPERATOR, USER = "operator-of-the-test", "user-of-the-test"


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One server for all tests, whose models an operator may load and unload; a user may use one of them."""

    def caller(name: str, token: str, rights: str) -> str:
        return f'[[caller]]\nname = "{name}"\ntoken_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{rights}\n'

    auth = tmp_path_factory.mktemp("auth") / "auth.toml"
    auth.write_text(caller("operator", OPERATOR, 'may = ["infer", "manage"]') + caller("user", USER, 'models = ["add"]'))
    return start_server(repository, "--model-control", "explicit", "--auth-file", str(auth))


@pytest.fixture(scope="session")
def proxy(start_proxy: Callable[..., Proxy], server: Server, tmp_path_factory: pytest.TempPathFactory) -> Proxy:
    """One proxy before `server`, with the operator's token."""
    token = tmp_path_factory.mktemp("token") / "operator"
    token.write_text(OPERATOR)
    return start_proxy("--url", server.url, "--enclave-allow-debug", "--auth-key-file", token)


@pytest.fixture(scope="session")
def open_proxy(start_proxy: Callable[..., Proxy], server: Server) -> Proxy:
    """A proxy without a token: programs bring theirs."""
    return start_proxy("--url", server.url, "--enclave-allow-debug")


def stop(process: subprocess.Popen) -> int:
    """Stops a process by SIGTERM; returns its exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(30)


def digest(program: Path) -> str:
    return hashlib.sha256(program.read_bytes()).hexdigest()


# What goes wrong, with the words of the proxy, HTTP and gRPC for it.
FAULTS = {
    "wrong hash": ("server-not-trusted", 503, "UNAVAILABLE"),
    "swapped server": ("server-changed", 503, "UNAVAILABLE"),
    "expired key": ("key-unusable", 503, "UNAVAILABLE"),
    "dead upstream": ("server-unreachable", 502, "UNAVAILABLE"),
    "slow upstream": ("server-slow", 504, "DEADLINE_EXCEEDED"),
}


@pytest.fixture(scope="session")
def faulty(
    start_server: Callable[..., Server], start_proxy: Callable[..., Proxy], repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Proxy]:
    """Proxies of which each meets one of `FAULTS`."""
    folder = tmp_path_factory.mktemp("swapped")
    program = executable("confonnx-server")
    policy = folder / "policy.toml"
    policy.write_text(f'allow_debug = true\n[server]\nbuild_sha256 = ["{digest(program)}"]\n')
    server = start_server(repository)
    wrong = start_proxy("--url", server.url, "--enclave-hash", "ab" * 32)
    swapped = start_proxy("--url", server.url, "--policy", policy)
    with urllib.request.urlopen(swapped.url + "/v2/models/add") as answer:
        assert answer.status == 200
    stop(server.process)
    # A program with one byte more is another program.
    other = folder / "confonnx-server"
    other.write_bytes(program.read_bytes() + b"\0")
    other.chmod(0o755)
    start_server(repository, port=server.port, program=other)
    # It had a key that was good; two days later the server has none that is.
    clock = folder / "clock"
    clock.write_text("0")
    expired = start_proxy("--url", f"http://127.0.0.1:{server.port}", "--enclave-allow-debug", clock=clock)
    with urllib.request.urlopen(expired.url + "/v2/models/add") as answer:
        assert answer.status == 200
    clock.write_text(str(2 * 86400))
    return {
        "wrong hash": wrong,
        "swapped server": swapped,
        "expired key": expired,
        "dead upstream": start_proxy("--url", f"http://127.0.0.1:{free_port()}", "--enclave-allow-debug", "--retries", "0"),
        "slow upstream": start_proxy("--url", Recorder().url, "--enclave-allow-debug", "--timeout", "0.5"),
    }

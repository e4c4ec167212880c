"""A server with models of the caller's, and bare ONNX Runtime beside it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import onnxruntime

from confonnx.client import Client

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2


def executable() -> Path:
    """The path in `CONFONNX_SERVER`, or of what `make` builds."""
    if given := os.environ.get("CONFONNX_SERVER"):
        return Path(given)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "confonnx-server"


def bare(model: bytes) -> onnxruntime.InferenceSession:
    """A session with the server's options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _loads(model: bytes) -> bool:
    try:
        bare(model)
    except Exception:
        return False
    return True


class Trial:
    """Says whether ONNX Runtime takes a model at all, so that a round is not of refusals. It runs in a process of its own:
    some models end it."""

    def __init__(self) -> None:
        self.pool = self._fresh()

    def loads(self, model: bytes) -> bool:
        try:
            return self.pool.submit(_loads, model).result()
        except BrokenProcessPool:
            self.pool = self._fresh()
            return False

    @staticmethod
    def _fresh() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()


class Live:
    """A server of `models`, by name."""

    def __init__(self, models: dict[str, bytes], *flags: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="confonnx-"))
        for name, model in models.items():
            version = self.folder / "models" / name / "1"
            version.mkdir(parents=True)
            (version / "model.onnx").write_bytes(model)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = self.folder / "log"
        command = [
            str(executable()), "--debug", "--address", "127.0.0.1", "--http-port", str(port), "--admin-port", "0",
            "--model-repository", str(self.folder / "models"), "--threads-per-session", str(THREADS),
            "--onnxruntime-library", str(next((ROOT / ".cache" / "onnxruntime").glob("libonnxruntime.so.*"))), *flags,
        ]  # fmt: skip
        with self.log.open("wb") as out:
            # The server's settings are those given here and no others.
            environment = {name: text for name, text in os.environ.items() if not name.startswith("CONFONNX_")}
            self.process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=environment)
        while self.alive():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)

    def alive(self) -> bool:
        return self.process.poll() is None

    def client(self, timeout: float) -> Client:
        return Client(self.url, enclave_allow_debug=True, timeout=timeout)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

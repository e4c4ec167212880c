"""Each notebook is run from its first cell to its last against a server that this test starts; what is committed has no outputs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Iterator

import nbclient
import nbformat
import phantom
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
PLOTS = {"first_answer": 1, "medical_image": 1, "policy": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    for name in ("digits", "lesion"):
        (folder / "models" / name / "1").mkdir(parents=True)
    shutil.copy(HERE.parent / "digits" / "digits.onnx", folder / "models/digits/1/model.onnx")
    (folder / "models/lesion/1/model.onnx").write_bytes(phantom.model())
    [library] = (ROOT / ".cache" / "onnxruntime").glob("libonnxruntime.so.*")
    port, admin = free_port(), free_port()
    flags: list[str | Path] = ["--model-repository", folder / "models", "--debug", "--onnxruntime-library", library]
    with (folder / "log").open("w") as log:
        command = [TARGET / "confonnx-server", *flags, "--http-port", str(port), "--admin-port", str(admin)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not ready(f"http://127.0.0.1:{admin}/health/ready"):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_all_notebooks_are_known() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(PLOTS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFONNX_URL", url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "bindings" / "python" / "python"))
    notebook: Any = nbformat.read(path, as_version=4)
    # Notebooks write files beside themselves, so they run in a copy of the folder.
    shutil.copytree(HERE, tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "digits").symlink_to(HERE.parent / "digits")
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    done = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    plots = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(plots) == PLOTS[path.stem]
    assert all(len(plot["data"]["image/png"]) > 5000 for plot in plots)
    if keep := os.environ.get("KEEP_NOTEBOOKS"):
        nbformat.write(done, Path(keep) / path.name)

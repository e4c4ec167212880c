"""The commands that need no server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import confonnx
import digits
from confonnx import _confonnx, _tensor
from confonnx import main as cli
from confonnx.create_test_inputs import create_test_inputs
from confonnx.get_model_info import get_model_info
from confonnx.get_model_info import main as model_info_main
from confonnx.hash_model import hash_model
from confonnx.hash_model import main as hash_model_main

SAMPLES = digits.HERE / "samples"


def test_the_version_is_that_of_the_crate() -> None:
    assert confonnx.__version__ == _confonnx.__version__
    assert confonnx.__version__.count(".") == 2


def test_hash_model_is_the_sha256_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = hashlib.sha256(digits.MODEL.read_bytes()).hexdigest()
    assert hash_model(digits.MODEL) == hash_model(str(digits.MODEL)) == expected
    hash_model_main([str(digits.MODEL), "--out", str(tmp_path / "hash")])
    assert (tmp_path / "hash").read_text() == expected
    assert capsys.readouterr().out == expected + "\n"


def test_model_info_of_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "inputs": {"image": {"shape": ["N", 1, 28, 28], "type": "float32"}},
        "outputs": {"probabilities": {"shape": ["N", 10], "type": "float32"}},
    }
    assert get_model_info(digits.MODEL) == expected
    model_info_main([str(digits.MODEL), "--out", str(tmp_path / "info.json")])
    assert json.loads((tmp_path / "info.json").read_text()) == expected
    assert json.loads(capsys.readouterr().out) == expected


def test_a_missing_model_is_an_os_error(tmp_path: Path) -> None:
    for read in (hash_model, get_model_info):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.onnx")


def test_what_is_no_model_is_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("no model at all")
    with pytest.raises(ValueError):
        get_model_info(path)


@pytest.mark.parametrize("run", [hash_model_main, model_info_main])
def test_commands_explain_a_missing_model(run: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        run([str(tmp_path / "none.onnx")])  # type: ignore[operator]
    assert status.value.code == 2
    assert "none.onnx" in capsys.readouterr().err


TYPES = ["bool", "string", "float16", "float32", "float64", "bfloat16"]
TYPES += ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("type_", TYPES)
def test_random_inputs_of_every_type_are_readable(type_: str) -> None:
    info = {"inputs": {"x": {"shape": ["N", 3, None], "type": type_}}, "outputs": {}}
    inputs = create_test_inputs(info)  # type: ignore[arg-type]
    assert inputs["x"]["type"] == type_
    (tensor,) = _confonnx.tensors_from_json(json.dumps(inputs).encode())
    assert (tensor.name, tensor.shape) == ("x", [1, 3, 1])
    array = _tensor.array(tensor.datatype, tensor.shape, tensor.data)
    assert array.tolist() == inputs["x"]["values"]
    if type_ in ("int32", "int64"):
        assert set(array.ravel().tolist()) <= {0, 1}, "a model with ids does not take it"


def test_random_inputs_may_be_empty() -> None:
    inputs = create_test_inputs({"inputs": {"x": {"shape": [0, 3], "type": "int8"}}, "outputs": {}})
    (tensor,) = _confonnx.tensors_from_json(json.dumps(inputs).encode())
    assert tensor.shape == [0, 3]


def test_json_and_tensor_protos_hold_the_same_digit() -> None:
    (tensor,) = _confonnx.tensors_from_json((SAMPLES / "digit_7.json").read_bytes())
    proto = _confonnx.read_tensor_proto((SAMPLES / "digit_7.pb").read_bytes())
    assert (tensor.name, tensor.datatype, tensor.shape) == ("image", "FP32", [1, 1, 28, 28])
    assert (proto.name, proto.datatype, proto.shape) == (tensor.name, tensor.datatype, tensor.shape)
    arrays = [_tensor.array(each.datatype, each.shape, each.data) for each in (tensor, proto)]
    np.testing.assert_allclose(*arrays, atol=1e-4)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"x": 1}', b'{"x": {"type": "float32"}}', b'{"x": {"type": "complex64", "values": [1]}}']
    + [b'{"x": {"type": "uint8", "values": [256]}}', b'{"x": {"type": "int64", "values": [[1], [2, 3]]}}'],
)
def test_malformed_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        _confonnx.tensors_from_json(text)


def test_malformed_tensor_protos_are_value_errors() -> None:
    content = (SAMPLES / "digit_7.pb").read_bytes()
    for end in (3, 20, len(content) - 1):
        with pytest.raises(ValueError):
            _confonnx.read_tensor_proto(content[:end])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "One of --pb-in/--json-in"),
        (["--json-in", "a", "--pb-in", "b", "--pb-in-names", "c"], "Only one of --pb-in/--json-in"),
        (["--pb-in", "a", "b", "--pb-in-names", "c"], "does not match number of input names"),
        (["--pb-in", "a"], "does not match number of input names"),
        (["--json-in", "a", "--auth-key", "k", "--auth-pass", "p"], "Only one of --auth-key"),
        (["--json-in", "a", "--mode", "train"], "--mode"),
        (["--mode", "verify", "--policy", "strict", "--enclave-allow-debug"], "Only one of --policy"),
    ],
)
def test_main_refuses_contradictory_flags(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as status:
        cli.main(argv)
    assert status.value.code == 2
    assert message in capsys.readouterr().err


def test_main_names_the_file_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.pb"
    path.write_bytes(b"\xff" * 9)
    for argv in (["--pb-in", str(path), "--pb-in-names", "x"], ["--json-in", str(tmp_path / "none.json")]):
        with pytest.raises(SystemExit) as status:
            cli.main([*argv, "--enclave-allow-debug"])
        assert status.value.code == 1
        assert argv[1] in capsys.readouterr().err


@pytest.mark.parametrize("module", ["main", "hash_model", "get_model_info", "create_test_inputs"])
def test_every_command_runs_as_a_module(module: str) -> None:
    run = subprocess.run([sys.executable, "-m", f"confonnx.{module}", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert f"python -m confonnx.{module}" in run.stdout

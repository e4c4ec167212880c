"""Send one inference request from the shell: `python -m confonnx.main --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Sequence

from confonnx import _confonnx, _tensor
from confonnx._tensor import Array
from confonnx.client import Client, ConfonnxError

FAIL, END = "\033[1;91m", "\033[0m"


def main(argv: Sequence[str]) -> None:
    """Runs the command; on failure prints why and exits with status 1, or with `-v` raises."""
    parser = _parser()
    args = parser.parse_args(argv)
    _check(parser, args)
    try:
        if args.mode == "verify":
            print(_client(args).attest())
        elif args.mode == "provision-model-key":
            key = args.model_key or Path(args.model_key_file).read_text()
            owner_key = Path(args.owner_key_file).read_text() if args.owner_key_file else None
            model_hash = _client(args).provision_model_key(key, owner_key=owner_key)
            print(f"Unlocked, model hash {model_hash}")
        else:
            _predict(args)
    except (ConfonnxError, OSError, TypeError, ValueError) as error:
        if args.verbose:
            raise
        _fail(error)


def _predict(args: argparse.Namespace) -> None:
    inputs = _read_inputs(args)
    if args.verbose:
        _describe("Inputs", inputs)
    outputs = _client(args).predict(inputs)
    if args.verbose:
        _describe("Outputs", outputs)
    if args.pb_out:
        folder = Path(args.pb_out)
        folder.mkdir(parents=True, exist_ok=True)
        for i, (name, array) in enumerate(outputs.items()):
            path = folder / f"output_{i}.pb"
            print(f'Saving "{name}" output as {path.name}')
            path.write_bytes(_confonnx.write_tensor_proto(_tensor.tensor(name, array)))
    if args.json_out:
        print(f"Saving inference results to {args.json_out}")
        Path(args.json_out).write_text(_confonnx.tensors_to_json(_tensor.tensors(outputs)))


def _read_inputs(args: argparse.Namespace) -> dict[str, Array]:
    if args.json_in:
        tensors = _confonnx.tensors_from_json(Path(args.json_in).read_bytes())
        return {name: _tensor.array(type_, shape, data) for name, type_, shape, data in tensors}
    inputs = {}
    for path, name in zip(args.pb_in, args.pb_in_names):
        try:
            _, type_, shape, data = _confonnx.read_tensor_proto(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        print(f'Using {path} as "{name}" input')
        inputs[name] = _tensor.array(type_, shape, data)
    return inputs


def _client(args: argparse.Namespace) -> Client:
    auth = {"user": args.auth_user, "pass": args.auth_pass} if args.auth_pass else None
    model_hash = args.enclave_model_hash
    if args.enclave_model_hash_file:
        model_hash = Path(args.enclave_model_hash_file).read_text().strip()
    signing_key = Path(args.enclave_signing_key_file).read_text() if args.enclave_signing_key_file else None
    return Client(
        args.url,
        auth=auth,
        auth_key=args.auth_key,
        enclave_signing_key=signing_key,
        enclave_hash=args.enclave_hash,
        enclave_model_hash=model_hash,
        enclave_allow_debug=args.enclave_allow_debug,
        policy=args.policy,
        model=args.model_name,
        model_version=args.model_version,
    )


def _describe(title: str, arrays: dict[str, Array]) -> None:
    print(f"{title}:")
    for name, array in arrays.items():
        print(f" {name}: dtype={array.dtype} shape={array.shape}")


def _fail(error: Exception) -> None:
    text = f"ERROR: {error}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        text = f"{FAIL}{text}{END}"
    print(text)
    sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m confonnx.main", description="Test client for sending inference requests"
    )
    add = parser.add_argument
    add("--mode", choices=["predict", "verify", "provision-model-key"], default="predict",
        help="Run the model, only check the server's proof, or give an encrypted model its key")
    add("--url", default="http://localhost:8888/", help="Server URL (default: %(default)s)")
    add("--auth-key", help="Authentication key, sent inside the seal")
    add("--auth-user", default="api", help="Authentication username (HTTP Basic, for an ingress; default: %(default)s)")
    add("--auth-pass", help="Authentication password (HTTP Basic, for an ingress)")
    add("--model-name", help="Name of the model; may be left out when the server has only one")
    add("--model-version", help="Its version (default: the highest with the expected model hash, or the highest)")
    add("--policy", metavar="FILE|PRESET", help="Policy file, or the preset strict or cloud; the --enclave flags narrow it")
    add("--enclave-signing-key-file", help="Path to expected enclave signing public key (PEM format)")
    add("--enclave-hash", help="Expected enclave hash (hex encoded), or path to an enclave_info.json")
    add("--enclave-model-hash", help="Expected enclave model hash of the model (hex encoded), or NAME=HASH")
    add("--enclave-model-hash-file", help="Path to expected enclave model hash (hex encoded)")
    add("--enclave-allow-debug", action="store_true", help="Allow debug-enabled and insecure enclaves")
    add("--model-key", help="Key of an encrypted model, a secret (AGE-SECRET-KEY-1…)")
    add("--model-key-file", help="Path to key of an encrypted model")
    add("--owner-key-file", help="Path to the model owner's private key (PEM), for a server that knows its owner")
    add("--pb-in", nargs="+", help="TensorProto input files")
    add("--pb-in-names", nargs="+", help="Graph input name for each TensorProto input file")
    add("--pb-out", help="Folder where TensorProto output files should be stored")
    add("--json-in", help="JSON input file")
    add("--json-out", help="JSON output file")
    add("-v", "--verbose", action="store_true", help="Verbose output")
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.auth_key and args.auth_pass:
        parser.error("Only one of --auth-key or --auth-user/--auth-pass can be specified")
    if args.enclave_model_hash and args.enclave_model_hash_file:
        parser.error("Only one of --enclave-model-hash/--enclave-model-hash-file can be specified")
    if args.policy and args.enclave_allow_debug:
        parser.error("Only one of --policy/--enclave-allow-debug can be specified: a policy says itself whether debug is allowed")
    if args.mode == "provision-model-key" and bool(args.model_key) == bool(args.model_key_file):
        parser.error("One of --model-key/--model-key-file must be specified")
    if args.mode != "predict":
        return
    if args.pb_in and args.json_in:
        parser.error("Only one of --pb-in/--json-in can be specified")
    if not args.pb_in and not args.json_in:
        parser.error("One of --pb-in/--json-in must be specified")
    if args.pb_in and len(args.pb_in) != len(args.pb_in_names or []):
        parser.error("Number of input files (--pb-in) does not match number of input names (--pb-in-names)")


if __name__ == "__main__":
    main(sys.argv[1:])

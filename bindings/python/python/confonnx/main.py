"""Send one inference request from the shell: `python -m confonnx.main --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Sequence

from confonnx import _confonnx, _progress, _tensor
from confonnx._tensor import Array
from confonnx.client import AttestationError, Client, ConfonnxError, PolicyError

FAIL, END = "\033[1;91m", "\033[0m"
# As the command says it.
INSECURE = "INSECURE: accepted, as you allowed. A stand-in for a TEE: nothing is proven."
FAILED, USAGE, NOT_GENUINE, NOT_TRUSTED, UNDECIDED = 1, 2, 3, 4, 5


def main(argv: Sequence[str]) -> None:
    """Runs the command; on failure says why on stderr and exits with a status of its own, or with `-v` raises.

    The status is that of the `confonnx` command: 1 failed, 2 wrong usage, 3 evidence not genuine, 4 genuine but refused by
    the policy, 5 evidence that cannot be decided about.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    _check(parser, args)
    try:
        if args.mode == "verify":
            attestation = _client(args).attest()
            print(attestation)
            print(INSECURE if attestation.tee == "insecure" else "Trusted.")
        elif args.mode == "provision-model-key":
            key = args.model_key or Path(args.model_key_file).read_text()
            owner_key = Path(args.owner_key_file).read_text() if args.owner_key_file else None
            model_hash = _client(args).provision_model_key(key, owner_key=owner_key)
            print(f"Unlocked, model hash {model_hash}")
        else:
            _predict(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads stdout any more; the interpreter must not try to write the rest to it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except (ConfonnxError, OSError, TypeError, ValueError) as error:
        if args.verbose:
            raise
        if args.mode == "verify" and isinstance(error, AttestationError) and error.table:
            print(error.table)
        _say(f"ERROR: {error}", failed=True)
        sys.exit(_status(error, UNDECIDED if args.mode == "verify" else FAILED))


def _status(error: Exception, otherwise: int) -> int:
    match error:
        case PolicyError():
            return USAGE
        case AttestationError(undecided=True):
            return UNDECIDED
        case AttestationError(genuine=genuine):
            return NOT_TRUSTED if genuine else NOT_GENUINE
    return otherwise


def _predict(args: argparse.Namespace) -> None:
    inputs = _read_inputs(args)
    if args.verbose:
        _describe("Inputs", inputs)
    bar = _progress.bar()
    try:
        outputs = _client(args, bar).predict(inputs)
    finally:
        if bar is not None:
            bar.erase()
    if args.verbose:
        _describe("Outputs", outputs)
    if args.pb_out:
        folder = Path(args.pb_out)
        folder.mkdir(parents=True, exist_ok=True)
        for i, (name, array) in enumerate(outputs.items()):
            path = folder / f"output_{i}.pb"
            _say(f'Saving "{name}" output as {path.name}')
            path.write_bytes(_confonnx.write_tensor_proto(_tensor.tensor(name, array)))
    text = _confonnx.tensors_to_json(_tensor.tensors(outputs))
    if args.json_out and args.json_out != "-":
        _say(f"Saving inference results to {args.json_out}")
        Path(args.json_out).write_text(text)
    elif args.json_out or not args.pb_out:
        print(text)


def _read_inputs(args: argparse.Namespace) -> dict[str, Array]:
    if args.json_in:
        content = sys.stdin.buffer.read() if args.json_in == "-" else Path(args.json_in).read_bytes()
        return {tensor.name: _array(tensor) for tensor in _confonnx.tensors_from_json(content)}
    inputs = {}
    for path, name in zip(args.pb_in, args.pb_in_names):
        try:
            tensor = _confonnx.read_tensor_proto(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        _say(f'Using {path} as "{name}" input')
        inputs[name] = _array(tensor)
    return inputs


def _array(tensor: _confonnx.Tensor) -> Array:
    return _tensor.array(tensor.datatype, tensor.shape, tensor.data)


def _client(args: argparse.Namespace, progress: _progress.Bar | None = None) -> Client:
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
        progress=progress,
    )


def _describe(title: str, arrays: dict[str, Array]) -> None:
    _say(f"{title}:")
    for name, array in arrays.items():
        _say(f" {name}: dtype={array.dtype} shape={array.shape}")


def _say(text: str, failed: bool = False) -> None:
    """Prints progress or an error to stderr. Results alone go to stdout, so that they can be piped."""
    if failed and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        text = f"{FAIL}{text}{END}"
    print(text, file=sys.stderr)


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
    add("--json-in", help="JSON input file, - for stdin")
    add("--json-out", help="JSON output file (default: stdout, unless --pb-out is given)")
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

"""Encrypt a model, so that only a TEE its owner trusts can run it: `python -m confonnx.encrypt_model MODEL`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from confonnx import _confonnx


@dataclass(frozen=True)
class EncryptedModel:
    """The hashes of a model; a client pins either (`enclave_model_hash`)."""

    model_hash: str
    """The hash of the model, which is served once it is unlocked; hex."""
    ciphertext_hash: str
    """The hash of the encrypted file, which a server can claim before it has the key; hex."""


def generate_key() -> str:
    """A fresh key: a secret, in the form of the `age` tool (`AGE-SECRET-KEY-1…`)."""
    return _confonnx.generate_model_key()


def encrypt_model(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    key: str | None = None,
    key_path: str | os.PathLike[str] | None = None,
) -> EncryptedModel:
    """Encrypts the `.onnx` file `model` into `out`, in the age format.

    Give the key as text (`key`) or the path of its file (`key_path`). External data, which lies beside the model, is encrypted
    with it.

    Raises `ValueError` when there is no usable key, or the file is not such a model; `OSError` when a file cannot be read
    or written.
    """
    if (key is None) == (key_path is None):
        raise ValueError("expected one of key and key_path")
    if key is None and key_path is not None:
        key = Path(key_path).read_text()
    assert key is not None
    found = _confonnx.encrypt_model(os.fspath(model), os.fspath(out), key)
    return EncryptedModel(found.model_hash, found.ciphertext_hash)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m confonnx.encrypt_model", description="Encrypt an ONNX model for a server that waits for its key"
    )
    parser.add_argument("model", help="Path to model")
    parser.add_argument("--key", required=True, metavar="FILE", help="Path to the key, a secret; made anew if there is none")
    parser.add_argument("--out", metavar="FILE", help="Path to encrypted model (default: MODEL.age)")
    args = parser.parse_args(argv)
    out = args.out or f"{args.model}.age"
    try:
        if not os.path.exists(args.key):
            key = generate_key()
            # The key's file is for its owner's eyes only from the start.
            with open(os.open(args.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"# public key: {_confonnx.model_key_recipient(key)}\n{key}\n")
            print(f"key               {args.key} (new: keep it, and keep it secret)")
        encrypted = encrypt_model(args.model, out, key_path=args.key)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"encrypted model   {out}")
    print(f"model hash        {encrypted.model_hash}")
    print(f"hash when locked  {encrypted.ciphertext_hash}")


if __name__ == "__main__":
    main(sys.argv[1:])

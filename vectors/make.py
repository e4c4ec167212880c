#!/usr/bin/env python3
"""vectors/make.py [--check]: writes vectors/{called,claims,exchange,padding,release-log}, or compares.

From docs/protocol.md and RFCs alone, by the Python package `cryptography`: nothing of confonnx has a part in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from email.utils import formatdate
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

VECTORS = Path(__file__).resolve().parent
sys.path.insert(0, str(VECTORS.parent / "bindings/python/tests"))

import peer  # noqa: E402

NOW = 1_795_426_200
AEAD = 0x0002
Case = dict[str, Any]


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def padded(length: int) -> int:
    """Padmé of max(length, 512), with logarithms by counting bits."""
    length = max(length, 512)
    e = length.bit_length() - 1
    s = e.bit_length()
    step = 1 << (e - s)
    return (length + step - 1) // step * step


def claims(models: list[Case], keys: list[Case], settings: Case) -> Case:
    return {
        "protocol": "confonnx/1",
        "issued_at": NOW,
        "build": {"version": "0.1.0", "sha256": "b1" * 32},
        "runtime": {"name": "onnxruntime", "version": "1.31.1", "sha256": "a7" * 32},
        "models": models,
        "keys": keys,
        "key_source": {"kind": "local"},
        "client_auth": {"kind": "bearer"},
        "settings": dict(sorted(settings.items())),
    }


def key_claim(key_id: int) -> Case:
    return {
        "key_id": key_id, "kem": "x25519", "not_before": NOW - 60, "not_after": NOW + 86340,
        "accepted_until": NOW + 89940,
    }


def binding(of: Case) -> bytes:
    """Section 3.5: the same JSON without two members."""
    kept = {name: value for name, value in of.items() if name not in ("issued_at", "keys")}
    return hashlib.sha256(compact(kept).encode()).digest()


DIGITS = {"name": "digits", "version": "1", "sha256": "3d" * 32}


def padding_cases() -> dict[str, Case]:
    lengths = sorted({0, 1, 511, 512, 513, 544, 545, 600, 1000, 1023, 1024, 1025, 65_535, 65_536, 65_537,
                      999_999, 1_000_000, 1_015_808, 1_015_809, (1 << 20) - 1, 1 << 20, (1 << 31) - 1}
                     | {3**n for n in range(6, 19)})
    return {"lengths": {
        "description": "Lengths of messages and what they are padded to", "clause": "docs/protocol.md 4, Padding",
        "lengths": lengths, "expected": [padded(length) for length in lengths],
    }}


def claims_cases() -> dict[str, Case]:
    locked = {"name": "secret é", "version": "2", "ciphertext_sha256": "5e" * 32, "batching": 16}
    sets = {
        "one-model": claims([DIGITS], [key_claim(17)], {"max_request_bytes": 67108864, "audit_log": False}),
        "later-and-other-keys": claims([DIGITS], [], {"max_request_bytes": 67108864, "audit_log": False}),
        "no-models": claims([], [key_claim(1), key_claim(2)], {}),
        "encrypted": claims([DIGITS, locked], [key_claim(17)], {"engine": "isolated", "nested": {"a": [1, 2]}}),
    }
    sets["later-and-other-keys"]["issued_at"] = NOW + 1000
    return {name: {
        "description": "What keys are bound to: SHA-256 of the claims without issued_at and keys",
        "clause": "docs/protocol.md 3.5", "claims": compact(value), "expected": binding(value).hex(),
    } for name, value in sets.items()}


def called_cases() -> dict[str, Case]:
    def model(name: str, version: str, digit: str, **more: str) -> Case:
        return {"name": name, "version": version, "sha256": digit * 64, **more}

    versions = [model("a", "9", "1"), model("a", "10", "1"), model("a", "11", "2"), model("b", "1", "1")]
    odd = [model("a", "next", "1"), model("a", "0x9", "1"), model("a", "18446744073709551616", "1")]
    one, two = "1" * 64, "2" * 64
    cases = {
        "highest-by-number": (versions, [one], "a", None, ["a", "10"]),
        "the-version-wanted": (versions, [one], "a", "9", ["a", "9"]),
        "the-version-wanted-has-another-hash": (versions, [one], "a", "11", "refused"),
        "the-hash-of-another-model": (versions, [f"b={one}"], "a", None, "refused"),
        "the-hash-of-this-model": (versions, [f"a={two}", f"b={one}"], "a", None, ["a", "11"]),
        "none-named-several-there": (versions, [one], None, None, "refused"),
        "none-named-one-there": (versions[:3], [one], None, None, ["a", "10"]),
        "no-such-model": (versions, [one], "c", None, "refused"),
        "no-hash-given": (versions, [], "a", None, ["a", None]),
        "versions-that-are-no-numbers": (odd, [one], "a", None, ["a", "18446744073709551616"]),
        "a-number-beats-them": ([*odd, model("a", "1", "1"), odd[0]], [one], "a", None, ["a", "1"]),
        "by-ciphertext": ([{"name": "a", "version": "3", "ciphertext_sha256": two}], [two], "a", None, ["a", "3"]),
    }
    return {name: {
        "description": "Which model and version a call goes to", "clause": "docs/protocol.md 2.5.1",
        "claims": compact(claims(models, [], {})), "model_hashes": hashes, "model": model_name, "version": version,
        "expected": expected,
    } for name, (models, hashes, model_name, version, expected) in cases.items()}


def insecure_document(nonce: bytes, key_configs: bytes, claim_bytes: bytes, **more: object) -> str:
    """The document of the insecure TEE, measurement 01…, for one nonce."""
    root = hashlib.sha256(b"\x00" + nonce).digest()
    digests = hashlib.sha256(key_configs).digest() + hashlib.sha256(claim_bytes).digest()
    report_data = hashlib.sha512(b"confonnx attestation v1" + root + digests).digest()
    report = {"warning": "insecure", "report_data": report_data.hex(), "measurement": "01" * 32, "debug": True}
    return compact({
        "version": 1, "key_configs": b64u(key_configs), "claims": b64u(claim_bytes),
        "evidence": {"tee": "insecure", "report": b64u(compact(report).encode()), "endorsements": {}}, **more,
        "freshness": {"root": root.hex(), "proof": {"leaf_index": 0, "tree_size": 1, "path": []}},
    })


class NoteSigner:
    """Signs notes as a log (type 1) or a witness (type 4) does."""

    def __init__(self, name: str, kind: int, seed: int) -> None:
        self.name, self.kind, self.key = name, kind, Ed25519PrivateKey.from_private_bytes(bytes([seed] * 32))
        self.typed = bytes([kind]) + self.key.public_key().public_bytes_raw()
        self.id = hashlib.sha256(name.encode() + b"\n" + self.typed).digest()[:4]
        self.verifier = f"{name}+{self.id.hex()}+{base64.b64encode(self.typed).decode()}"

    def line(self, text: str) -> str:
        signature = self.key.sign(text.encode())
        if self.kind == 4:
            signature = NOW.to_bytes(8, "big") + self.key.sign(f"cosignature/v1\ntime {NOW}\n{text}".encode())
        return f"— {self.name} {base64.b64encode(self.id + signature).decode()}\n"


def release_log_cases() -> dict[str, Case]:
    log = NoteSigner("log.example/releases", 1, 1)
    one, two, three = (NoteSigner(f"{name}.example", 4, seed) for seed, name in enumerate(["one", "two", "three"], 2))
    nonce, claim_bytes = bytes([3] * 32), compact(claims([DIGITS], [], {})).encode()
    release = f"confonnx release v1\nversion 1.2.3\nmanifest {'5a' * 32}\nenclave snp {'cd' * 48}\nenclave insecure {'01' * 32}\n"

    def node(kind: bytes, *parts: bytes) -> bytes:
        return hashlib.sha256(kind + b"".join(parts)).digest()

    def proof(entry: str, signers: list[NoteSigner], of: str | None = None, origin: str = log.name) -> str:
        """The entry number 2 of 3: its sibling is the hash of the first two. `of` is what the log has instead."""
        leaves = [node(b"\x00", leaf.encode()) for leaf in ("a", "b", of or entry)]
        sibling = node(b"\x01", *leaves[:2])
        text = f"{origin}\n3\n{base64.b64encode(node(bytes([1]), sibling, leaves[2])).decode()}\n"
        extra, path = base64.b64encode(entry.encode()).decode(), base64.b64encode(sibling).decode()
        lines = "".join(signer.line(text) for signer in signers)
        return f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex 2\n{path}\n\n{text}\n{lines}"

    good = proof(release, [log, one, two])
    other = release.replace("enclave insecure 01", "enclave insecure 02")
    cases = {
        "good": ("Logged, and cosigned by two of three witnesses", good, True),
        "all-witnesses": ("Cosigned by all", proof(release, [log, one, two, three]), True),
        "absent": ("A document without a proof", None, False),
        "no-proof": ("A proof of another form", "c2sp.org/tlog-proof@v2\n", False),
        "one-witness": ("One witness, where two are enough", proof(release, [log, one]), False),
        "one-witness-twice": ("One witness twice is one", proof(release, [log, one, one]), False),
        "unknown-witness": ("Signatures of unknown keys count for nothing",
                            proof(release, [log, one, NoteSigner("two.example", 4, 9)]), False),
        "wrong-cosignature": ("A known witness whose signature is of another checkpoint",
                              good.replace(three.name, two.name) + three.line("x\n"), False),
        "not-signed": ("The log did not sign", proof(release, [one, two]), False),
        "another-log": ("The origin is that of another log", proof(release, [log, one, two], origin="other.example"), False),
        "missing-entry": ("The log has another entry there", proof(release, [log, one, two], of=other), False),
        "another-program": ("The release is of another program", proof(other, [log, one, two]), False),
        "another-tee": ("The enclave hash is that of another TEE",
                        proof(release.replace("enclave insecure", "enclave tpm"), [log, one, two]), False),
        "no-release": ("The entry is no release", proof("anything\n", [log, one, two]), False),
        "index-with-zero": ("The index has a leading zero", good.replace("index 2", "index 02"), False),
        "extra-absent": ("The entry is absent", "\n".join(line for line in good.split("\n") if "extra" not in line), False),
    }
    witnesses = [witness.verifier for witness in (one, two, three)]
    return {name: {
        "description": description, "clause": "docs/protocol.md 2.14", "now": NOW, "nonce": nonce.hex(),
        "policy": {"allow_debug": True, "release_log": {"key": log.verifier, "witnesses": witnesses, "quorum": 2}},
        "document": insecure_document(nonce, b"", claim_bytes, **({} if found is None else {"release_proof": found})),
        "expected": "trusted" if trusted else "not-trusted", "failed_checks": [] if trusted else ["release log"],
    } for name, (description, found, trusted) in cases.items()}


def exchange_cases() -> dict[str, Case]:
    """Everything between a nonce and an answer, X25519 and AES-256-GCM."""
    nonce, ephemeral_ikm = bytes(range(32)), bytes(range(64, 96))
    epoch_secret, reply_nonce = bytes([7] * 32), bytes(range(128, 160))
    suite = b"KEM" + peer.KEM.to_bytes(2, "big")

    def derive_key_pair(ikm: bytes) -> X25519PrivateKey:
        """RFC 9180, section 7.1.3."""
        prk = peer.labeled_extract(suite, b"", b"dkp_prk", ikm)
        return X25519PrivateKey.from_private_bytes(peer.labeled_expand(suite, prk, b"sk", b"", 32))

    # The keys are bound to claims that name them by an id which follows from the binding.
    bound = claims([DIGITS], [], {"max_request_bytes": 67108864})
    key_id = (binding(bound)[0] + 1) % 256
    bound["keys"] = [key_claim(key_id)]
    prk = peer.extract(b"confonnx keys v1", epoch_secret)
    server = derive_key_pair(peer.expand(prk, b"kem" + peer.KEM.to_bytes(2, "big") + binding(bound), 32))
    public = server.public_key().public_bytes_raw()
    config = bytes([key_id]) + peer.KEM.to_bytes(2, "big") + public + b"\x00\x04" + b"\x00\x01" + AEAD.to_bytes(2, "big")
    key_configs = len(config).to_bytes(2, "big") + config

    document = insecure_document(nonce, key_configs, compact(bound).encode())

    path, token = "/v2/models/digits/infer", "a-token"
    body = compact({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.5]}]})
    fields = {
        "date": formatdate(NOW, usegmt=True), "authorization": f"Bearer {token}", "content-type": "application/json",
    }
    message = peer.request(path, fields, body.encode())
    message = message.ljust(padded(len(message)), b"\x00")
    header = bytes([key_id]) + b"".join(id.to_bytes(2, "big") for id in (peer.KEM, peer.KDF, AEAD))
    ephemeral = derive_key_pair(ephemeral_ikm)
    encapsulated = ephemeral.public_key().public_bytes_raw()
    agreed = peer.labeled_extract(suite, b"", b"eae_prk", ephemeral.exchange(X25519PublicKey.from_public_bytes(public)))
    shared = peer.labeled_expand(suite, agreed, b"shared_secret", encapsulated + public, 32)
    context = peer.Context.schedule(shared, AEAD, b"message/bhttp request\x00" + header)
    sealed = header + encapsulated + context.seal(message)

    answer = compact({"model_name": "digits", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [3.5]}]})
    section = b"".join(
        peer.varint(len(part)) + part
        for part in (b"content-type", b"application/json", b"confonnx-key", b"current")
    )
    reply = b"\x01" + peer.varint(200) + peer.varint(len(section)) + section
    reply += peer.varint(len(answer)) + answer.encode() + b"\x00"
    reply = reply.ljust(padded(len(reply)), b"\x00")
    sealed_reply = peer.Reply(AEAD, context.export(b"message/bhttp response", 32), encapsulated).seal(reply, reply_nonce)
    url = "https://models.example"
    return {"infer": {
        "description": "An inference: the client's nonce, the document, the sealed request, the sealed reply, the answer",
        "clause": "docs/protocol.md 2 to 5", "now": NOW, "url": url, "token": token, "nonce": nonce.hex(),
        "epoch_secret": epoch_secret.hex(), "binding": binding(bound).hex(), "key_configs": key_configs.hex(),
        "document_url": f"{url}/.well-known/confonnx/attestation?nonce={nonce.hex()}", "document": document,
        "gateway_url": f"{url}/.well-known/ohttp-gateway", "ephemeral": ephemeral_ikm.hex(),
        "request": {
            "path": path, "content_type": "application/json", "body": body, "plaintext": message.hex(),
            "sealed": sealed.hex(),
        },
        "reply": {"nonce": reply_nonce.hex(), "plaintext": reply.hex(), "sealed": sealed_reply.hex()},
        "expected": {"status": 200, "body": answer},
    }}


def made() -> dict[str, str]:
    suites = {"padding": padding_cases(), "claims": claims_cases(), "called": called_cases(), "exchange": exchange_cases(),
              "release-log": release_log_cases()}
    return {
        f"{suite}/{name}/case.json": json.dumps(case, indent=2, ensure_ascii=False) + "\n"
        for suite, cases in suites.items() for name, case in cases.items()
    }


def main() -> int:
    wrong = 0
    for name, text in made().items():
        path = VECTORS / name
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"vectors/{name} is not what follows from the specification", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())

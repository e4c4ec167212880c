"""Signatures of a release, in Sigstore's bundle format (v0.3), by a key that is kept offline: ECDSA P-256 with SHA-256.

`confonnx verify --release` reads them; so does `cosign verify-blob --bundle FILE --key PEM --insecure-ignore-tlog FILE`."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
ECDSA = ec.ECDSA(hashes.SHA256())


class BundleError(Exception):
    """A signature that is wrong, and why."""


def private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BundleError("expected a private key of P-256 (openssl ecparam -name prime256v1 -genkey), found another kind")
    return key


def hint(key: ec.EllipticCurvePublicKey) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded(hashlib.sha256(der).digest())


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pae(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (v1)."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def sign_file(key: ec.EllipticCurvePrivateKey, data: bytes) -> dict[str, Any]:
    digest = {"algorithm": "SHA2_256", "digest": encoded(hashlib.sha256(data).digest())}
    return bundle(key, {"messageSignature": {"messageDigest": digest, "signature": encoded(key.sign(data, ECDSA))}})


def sign_statement(key: ec.EllipticCurvePrivateKey, statement: bytes) -> dict[str, Any]:
    signature = {"sig": encoded(key.sign(pae(IN_TOTO, statement), ECDSA)), "keyid": ""}
    return bundle(key, {"dsseEnvelope": {"payload": encoded(statement), "payloadType": IN_TOTO, "signatures": [signature]}})


def bundle(key: ec.EllipticCurvePrivateKey, content: dict[str, Any]) -> dict[str, Any]:
    material = {"publicKey": {"hint": hint(key.public_key())}, "tlogEntries": []}
    return {"mediaType": MEDIA_TYPE, "verificationMaterial": material, **content}

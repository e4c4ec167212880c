"""The vectors of X-Wing checked by the ML-KEM of `cryptography`, which had no part in making them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peer
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

VECTORS = Path(__file__).resolve().parents[3] / "vectors"
KEM, LABEL = 0x647A, rb"\.//^" + b"\\"
AEADS = {"aes-128-gcm": 0x0001, "aes-256-gcm": 0x0002, "chacha20-poly1305": 0x0003}


def case(folder: str, aead: str) -> dict[str, Any]:
    text = (VECTORS / folder / f"exchange-x-wing-{aead}" / "case.json").read_text()
    read: dict[str, Any] = json.loads(text)
    return read


def bytes_of(message: dict[str, str], name: str) -> bytes:
    return bytes.fromhex(message[name])


def check_opening(
    server: dict[str, str], aead: int, ephemeral: bytes, request: dict[str, str]
) -> tuple[peer.Context, bytes]:
    """Checks that the request follows from these inputs; returns its HPKE context and its encapsulated key."""
    prk = peer.extract(b"confonnx keys v1", bytes_of(server, "epoch_secret"))
    ikm = peer.expand(prk, b"kem" + KEM.to_bytes(2, "big") + bytes_of(server, "binding"), 32)
    name = b"DeriveKeyPair"
    labeled = ikm + b"HPKE-v1KEM" + KEM.to_bytes(2, "big") + len(name).to_bytes(2, "big") + name + b"\x00\x20"
    seeds = hashlib.shake_256(hashlib.shake_256(labeled).digest(32)).digest(96)
    ml_kem, x25519 = MLKEM768PrivateKey.from_seed_bytes(seeds[:64]), X25519PrivateKey.from_private_bytes(seeds[64:])
    public = ml_kem.public_key().public_bytes_raw()
    assert bytes_of(server, "key_configs")[5 : 5 + 1216] == public + x25519.public_key().public_bytes_raw()

    sealed = bytes_of(request, "sealed")
    header, ct_m, ct_x, ciphertext = sealed[:7], sealed[7:1095], sealed[1095:1127], sealed[1127:]
    # ML-KEM's decapsulation encrypts again, so it gives this secret for the ciphertext of that message alone.
    ss_m = ml_kem.decapsulate(ct_m)
    assert ss_m == hashlib.sha3_512(ephemeral[:32] + hashlib.sha3_256(public).digest()).digest()[:32]
    assert ct_x == X25519PrivateKey.from_private_bytes(ephemeral[32:]).public_key().public_bytes_raw()
    ss_x = x25519.exchange(X25519PublicKey.from_public_bytes(ct_x))
    shared = hashlib.sha3_256(ss_m + ss_x + ct_x + x25519.public_key().public_bytes_raw() + LABEL).digest()
    context = peer.Context.schedule(shared, aead, b"message/bhttp request\x00" + header, KEM)
    assert context.seal(bytes_of(request, "plaintext")) == ciphertext
    return context, ct_m + ct_x


@pytest.mark.parametrize("name", AEADS)
def test_requests_and_replies_follow_from_their_inputs(name: str) -> None:
    read, aead = case("sealing", name), AEADS[name]
    context, encapsulated = check_opening(read["server"], aead, bytes_of(read, "ephemeral"), read["request"])
    secret = context.export(b"message/bhttp response", max(peer.KEY_LENGTHS[aead], peer.NONCE_LENGTH))
    reply = peer.Reply(aead, secret, encapsulated)
    sealed = reply.seal(bytes_of(read["reply"], "plaintext"), bytes_of(read, "reply_nonce"))
    assert sealed == bytes_of(read["reply"], "sealed")


@pytest.mark.parametrize("name", AEADS)
def test_resumed_messages_follow_from_their_inputs(name: str) -> None:
    read, aead = case("session", name), AEADS[name]
    opening = read["session"]
    context, _ = check_opening(read["server"], aead, bytes_of(opening, "ephemeral"), opening["request"])
    session = peer.Session.granted(bytes_of(opening["request"], "sealed"), context, opening["grant"])
    assert (session.id, session.secret) == (bytes_of(opening, "id"), bytes_of(read, "session_secret"))
    for message in read["messages"]:
        sealed, reply = session.seal(bytes_of(message["request"], "plaintext"), bytes_of(message, "salt"))
        assert sealed == bytes_of(message["request"], "sealed")
        answer = reply.seal(bytes_of(message["reply"], "plaintext"), bytes_of(message, "reply_nonce"))
        assert answer == bytes_of(message["reply"], "sealed")


def test_what_is_made_follows_from_the_specification() -> None:
    done = subprocess.run([sys.executable, str(VECTORS / "make.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""A client of sealed requests and resumptions, written from docs/protocol.md and RFC 9180, 9292 and 9458 alone.

Its primitives are those of the package `cryptography`. X25519 only; it verifies no evidence, and is for tests alone.
"""

from __future__ import annotations

import base64
import hmac
import os
from dataclasses import dataclass
from email.utils import formatdate

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

KEM, KDF = 0x0020, 0x0001
KEY_LENGTHS = {0x0001: 16, 0x0002: 32, 0x0003: 32}
NONCE_LENGTH = 12


def extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def expand(prk: bytes, info: bytes, length: int) -> bytes:
    okm, block = b"", b""
    while len(okm) < length:
        block = hmac.digest(prk, block + info + bytes([len(okm) // 32 + 1]), "sha256")
        okm += block
    return okm[:length]


def cipher(aead: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if aead == 0x0003 else AESGCM(key)


@dataclass(frozen=True)
class Context:
    """An HPKE context (RFC 9180, section 5.1), as far as one message and exports need it."""

    suite: bytes
    aead: int
    key: bytes
    nonce: bytes
    exporter: bytes

    @classmethod
    def schedule(cls, shared: bytes, aead: int, info: bytes, kem: int = KEM) -> Context:
        suite = b"HPKE" + b"".join(id.to_bytes(2, "big") for id in (kem, KDF, aead))
        hashes = labeled_extract(suite, b"", b"psk_id_hash", b""), labeled_extract(suite, b"", b"info_hash", info)
        context = b"\x00" + b"".join(hashes)
        secret = labeled_extract(suite, shared, b"secret", b"")
        key = labeled_expand(suite, secret, b"key", context, KEY_LENGTHS[aead])
        nonce = labeled_expand(suite, secret, b"base_nonce", context, NONCE_LENGTH)
        return cls(suite, aead, key, nonce, labeled_expand(suite, secret, b"exp", context, 32))

    def seal(self, message: bytes) -> bytes:
        return cipher(self.aead, self.key).encrypt(self.nonce, message, b"")

    def export(self, label: bytes, length: int) -> bytes:
        return labeled_expand(self.suite, self.exporter, b"sec", label, length)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


@dataclass(frozen=True)
class Reply:
    """Opens the reply to one request (RFC 9458, section 4.4)."""

    aead: int
    secret: bytes
    request: bytes

    def _sealing(self, nonce: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        prk = extract(self.request + nonce, self.secret)
        key = expand(prk, b"key", KEY_LENGTHS[self.aead])
        return cipher(self.aead, key), expand(prk, b"nonce", NONCE_LENGTH)

    def open(self, sealed: bytes) -> bytes:
        length = max(KEY_LENGTHS[self.aead], NONCE_LENGTH)
        aead, nonce = self._sealing(sealed[:length])
        return aead.decrypt(nonce, sealed[length:], b"")

    def seal(self, message: bytes, nonce: bytes) -> bytes:
        aead, derived = self._sealing(nonce)
        return nonce + aead.encrypt(derived, message, b"")


@dataclass(frozen=True)
class Key:
    """One X25519 key of `application/ohttp-keys`."""

    id: int
    public: bytes

    @classmethod
    def of(cls, listed: bytes) -> Key:
        while listed:
            length = int.from_bytes(listed[:2], "big")
            config, listed = listed[2 : 2 + length], listed[2 + length :]
            if int.from_bytes(config[1:3], "big") == KEM:
                return cls(config[0], config[3:35])
        raise ValueError("no X25519 key")

    def seal(self, aead: int, message: bytes) -> tuple[bytes, Reply, Context]:
        """A full request, the opener of its reply, and its context."""
        header = bytes([self.id]) + b"".join(id.to_bytes(2, "big") for id in (KEM, KDF, aead))
        ephemeral = X25519PrivateKey.generate()
        encapsulated = ephemeral.public_key().public_bytes_raw()
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.public))
        suite = b"KEM" + KEM.to_bytes(2, "big")
        prk = labeled_extract(suite, b"", b"eae_prk", shared)
        shared = labeled_expand(suite, prk, b"shared_secret", encapsulated + self.public, 32)
        context = Context.schedule(shared, aead, b"message/bhttp request\x00" + header)
        secret = context.export(b"message/bhttp response", max(KEY_LENGTHS[aead], NONCE_LENGTH))
        return header + encapsulated + context.seal(message), Reply(aead, secret, encapsulated), context


@dataclass
class Session:
    """A resumed session (docs/protocol.md, section 4.1), from either end."""

    header: bytes
    id: bytes
    secret: bytes
    counter: int = 0

    @classmethod
    def granted(cls, request: bytes, context: Context, grant: str) -> Session:
        id, lifetime = grant.split("; lifetime=")
        assert int(lifetime) > 0
        return cls(request[:7], base64.urlsafe_b64decode(id + "=="), context.export(b"confonnx session v1", 32))

    @property
    def aead(self) -> int:
        return int.from_bytes(self.header[5:7], "big")

    def seal(self, message: bytes, salt: bytes | None = None) -> tuple[bytes, Reply]:
        salt = salt or os.urandom(32)
        head = self.header + self.id + self.counter.to_bytes(8, "big")
        self.counter += 1
        aead, nonce, secret = self._derived(head, salt)
        sealed = aead.encrypt(nonce, message, b"")
        return head + salt + sealed, Reply(self.aead, secret, head + salt + sealed[-16:])

    def open(self, request: bytes) -> tuple[bytes, Reply]:
        head, salt, sealed = request[:31], request[31:63], request[63:]
        assert head[:23] == self.header + self.id
        aead, nonce, secret = self._derived(head, salt)
        return aead.decrypt(nonce, sealed, b""), Reply(self.aead, secret, head + salt + sealed[-16:])

    def _derived(self, head: bytes, salt: bytes) -> tuple[AESGCM | ChaCha20Poly1305, bytes, bytes]:
        prk = extract(salt, self.secret)

        def derive(what: bytes, length: int) -> bytes:
            return expand(prk, b"confonnx session v1 " + what + b"\x00" + head, length)

        key_length = KEY_LENGTHS[self.aead]
        key, nonce = derive(b"request key", key_length), derive(b"request nonce", NONCE_LENGTH)
        return cipher(self.aead, key), nonce, derive(b"reply", max(key_length, NONCE_LENGTH))


def varint(value: int) -> bytes:
    for prefix, bytes in enumerate((1, 2, 4, 8)):
        if value < 1 << (8 * bytes - 2):
            return (value | prefix << (8 * bytes - 2)).to_bytes(bytes, "big")
    raise ValueError(value)


def request(path: str, fields: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """A known-length binary HTTP request with a date, GET or, with a body, POST."""

    def prefixed(bytes: bytes) -> bytes:
        return varint(len(bytes)) + bytes

    fields = {"date": formatdate(usegmt=True), **(fields or {})}
    control = [b"POST" if body else b"GET", b"https", b"", path.encode()]
    section = b"".join(prefixed(name.encode()) + prefixed(value.encode()) for name, value in fields.items())
    return b"\x00" + b"".join(map(prefixed, control)) + prefixed(section) + prefixed(body) + b"\x00"


def response(message: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of a known-length binary HTTP response."""
    at = 0

    def number() -> int:
        nonlocal at
        bytes = 1 << (message[at] >> 6)
        value = int.from_bytes(message[at : at + bytes], "big") & ((1 << (8 * bytes - 2)) - 1)
        at += bytes
        return value

    def bytes() -> bytes:
        nonlocal at
        length = number()
        at += length
        return message[at - length : at]

    assert number() == 1
    status, end = number(), number()
    end += at
    fields = {}
    while at < end:
        name = bytes().decode()
        fields[name] = bytes().decode()
    return status, fields, bytes()



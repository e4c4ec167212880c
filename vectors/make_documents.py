#!/usr/bin/env python3
"""vectors/make_documents.py: writes vectors/documents, a document of each kind of TEE around the evidence of vectors/evidence, so that what is
checked of it can be compared: natively, in Node, in Chromium.

The evidence was made for other programs, and the quote of Azure's virtual machine is not from the machine of its report, so each has
checks that fail; SEV-SNP's, TDX' and SGX's are in docs/samples/proofs. Nitro's is signed here, by a chain whose root is not AWS's, and is
made once: signatures are random. It needs the package `cryptography`."""

import base64
import datetime
import importlib.util
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE, DOCUMENTS = ROOT / "vectors/evidence", ROOT / "vectors/documents"
ISSUED = 1795426200

loader = SourceFileLoader("proofs", str(ROOT / "scripts/sample-proofs"))
spec = importlib.util.spec_from_loader("proofs", loader)
proofs = importlib.util.module_from_spec(spec)
loader.exec_module(proofs)
b64u = proofs.b64u


def azure() -> tuple[bytes, dict[str, object]]:
    """Report and runtime data of one machine, quote and registers of another, as their vendor's crate writes them."""
    hcl = (EVIDENCE / "azure/hcl-report-snp.bin").read_bytes()
    start = 32 + 1184
    size = int.from_bytes(hcl[start + 16 : start + 20], "little")
    quote = (EVIDENCE / "azure/quote.bin").read_bytes()

    length = int.from_bytes(quote[:8], "little")
    signature, at = quote[8 : 8 + length], 8 + length
    length = int.from_bytes(quote[at : at + 8], "little")
    message, at = quote[at + 8 : at + 8 + length], at + 8 + length
    count = int.from_bytes(quote[at : at + 8], "little")
    pcrs = []
    for _ in range(count):
        at += 8
        pcrs.append(quote[at : at + 32])
        at += 24
    report = {
        "hardware": "snp",
        "hardware_report": b64u(hcl[32:start]),
        "runtime_data": b64u(hcl[start + 20 : start + 20 + size]),
        "quote": b64u(message),
        "signature": b64u(bytes.fromhex("0014000b0100") + signature),
        "pcrs": [b64u(pcr) for pcr in pcrs],
    }
    stapled = {"vcek": b64u((EVIDENCE / "snp/vcek_milan.der").read_bytes())}
    ask, _ = (EVIDENCE / "snp/cert_chain_milan").read_text().split("-----END CERTIFICATE-----\n", 1)
    return json.dumps(report).encode(), stapled | {"ask": b64u(proofs.der(ask))}


def cbor(value: object) -> bytes:
    def head(major: int, number: int) -> bytes:
        if number < 24:
            return bytes([major << 5 | number])
        size = next(size for size in (0, 1, 2, 3) if number < 1 << (8 << size))
        return bytes([major << 5 | 24 + size]) + number.to_bytes(1 << size, "big")

    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    assert isinstance(value, dict)
    return head(5, len(value)) + b"".join(cbor(key) + cbor(member) for key, member in value.items())


def nitro() -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    day = datetime.datetime.fromtimestamp(ISSUED, datetime.timezone.utc)
    month = datetime.timedelta(days=30)

    def certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, authority: bool) -> bytes:
        def called(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        usage = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only", "decipher_only"], False
        )
        builder = x509.CertificateBuilder().subject_name(called(name)).issuer_name(called(issuer)).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(day - month).not_valid_after(day + month)
        builder = builder.add_extension(x509.BasicConstraints(authority, 0 if authority and name != issuer else None), critical=True)
        builder = builder.add_extension(x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, **usage), critical=True)
        return builder.sign(by, hashes.SHA384()).public_bytes(serialization.Encoding.DER)

    root, middle, leaf = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
    bundle = [certificate("a test root", root, "a test root", root, True), certificate("an authority", middle, "a test root", root, True)]
    payload = cbor({
        "module_id": "i-0-enc0",
        "digest": "SHA384",
        "timestamp": (ISSUED - 10) * 1000,
        "pcrs": {index: bytes([index + 1]) * 48 for index in range(16)},
        "certificate": certificate("the enclave", leaf, "an authority", middle, False),
        "cabundle": bundle,
        "public_key": None,
        "user_data": b"\x5a" * 64,
        "nonce": None,
    })  # fmt: skip
    header = bytes.fromhex("a1013822")
    signed = leaf.sign(cbor(["Signature1", header, b"", payload]), ec.ECDSA(hashes.SHA384()))
    signature = b"".join(part.to_bytes(48, "big") for part in utils.decode_dss_signature(signed))
    return cbor([header, {}, payload, signature])


def main() -> None:
    DOCUMENTS.mkdir(exist_ok=True)
    made = EVIDENCE / "nitro/document.bin"
    if not made.exists():
        made.write_bytes(nitro())
    documents = {
        "azure": azure(),
        "nitro": (made.read_bytes(), {}),
        "tpm": ((EVIDENCE / "tpm/evidence.json").read_bytes(), {}),
    }
    for tee, (report, stapled) in documents.items():
        (DOCUMENTS / f"{tee}.document.json").write_text(proofs.document(tee, ISSUED, report, stapled) + "\n")


if __name__ == "__main__":
    main()

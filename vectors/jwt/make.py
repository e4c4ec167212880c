"""Makes the JWT vectors with PyJWT and cryptography, which share no code with the server.

python3 -m venv /tmp/jwt && /tmp/jwt/bin/pip install PyJWT==2.15.1 cryptography==50.0.2
/tmp/jwt/bin/python vectors/jwt/make.py      # new keys each time; the private halves are not kept
"""

import base64
import hashlib
import hmac
import json
import pathlib

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

FOLDER = pathlib.Path(__file__).parent
NOW = 1_800_000_000
ISSUER, AUDIENCE = "https://issuer.example/realms/lab", "confonnx"
USUAL = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": NOW + 3600, "nbf": NOW - 10, "iat": NOW - 10}

KEYS = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "rsa-new": rsa.generate_private_key(65537, 2048),
    "rsa-only-512": rsa.generate_private_key(65537, 2048),
    "rsa-for-encryption": rsa.generate_private_key(65537, 2048),
    "rsa-weak": rsa.generate_private_key(65537, 1024),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
STRANGER = rsa.generate_private_key(65537, 2048)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: object) -> str:
    return b64(json.dumps(value).encode())


def jwk(kid: str, **more: object) -> dict[str, object]:
    algorithm = {"r": "RS256", "p": "ES" + kid[1:].replace("521", "512"), "e": "EdDSA"}[kid[0]]
    public = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(KEYS[kid].public_key()))
    public.pop("key_ops", None)
    return {**public, "kid": kid, **more}


def sign(key: str = "rsa", algorithm: str = "RS256", header: dict[str, object] | None = None, **claims: object) -> str:
    payload = {name: value for name, value in {**USUAL, **claims}.items() if value is not None}
    header = {"kid": key, **(header or {})}
    # Without PyJWT's own checks of claims: some are wrong here on purpose.
    return jwt.api_jws.encode(
        json.dumps(payload).encode(), KEYS[key], algorithm, headers={k: v for k, v in header.items() if v is not None}
    )


def raw(header: str, payload: str, key: str = "rsa") -> str:
    """A token of any two parts, well signed."""
    message = f"{header}.{payload}".encode()
    return f"{header}.{payload}.{b64(jwt.get_algorithm_by_name('RS256').sign(message, KEYS[key]))}"


def hs256(secret: bytes) -> str:
    message = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa'})}.{part(USUAL)}"
    return f"{message}.{b64(hmac.digest(secret, message.encode(), 'sha256'))}"


def altered(token: str, index: int, change) -> str:
    parts = token.split(".")
    parts[index] = change(parts[index])
    return ".".join(parts)


def flipped(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]


good = sign()
pem = KEYS["rsa"].public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
stranger = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key()))
stranger_signed = jwt.encode(USUAL, STRANGER, "RS256", headers={"kid": "rsa", "jwk": stranger})
all_algorithms = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]

cases: list[dict[str, object]] = []


def case(name: str, token: str, expected: str = "ok", at: int = NOW, keys: str = "keys", algorithms=("RS256", "ES256")):
    cases.append(
        {"name": name, "token": token, "at": at, "keys": keys, "algorithms": list(algorithms), "expected": expected}
    )


# Accepted.
case("rs256", good)
case("es256", sign("p256", "ES256"))
for algorithm in ["RS384", "RS512", "PS256", "PS384", "PS512"]:
    case(algorithm.lower(), sign("rsa", algorithm), algorithms=all_algorithms)
case("es384", sign("p384", "ES384"), algorithms=all_algorithms)
case("eddsa", sign("ed25519", "EdDSA"), algorithms=all_algorithms)
case("never-expires", sign(exp=4_102_444_800, nbf=None, groups=["lab", "staff"], scope="infer other"))
case("typ-absent", sign(header={"typ": None}))
case("typ-at-jwt", sign(header={"typ": "at+jwt"}))
case("typ-application-at-jwt", sign(header={"typ": "application/AT+JWT"}))
case("aud-list", sign(aud=["other", AUDIENCE]))
case("exp-float", sign(exp=NOW + 0.5))
case("exp-within-leeway", sign(exp=NOW), at=NOW + 59)
case("nbf-within-leeway", sign(nbf=NOW + 60))
case("kid-absent-one-key", sign(header={"kid": None}), keys="keys-one")
case("key-rotated", sign("rsa-new"), keys="keys-rotated")
case("crit-in-payload", sign(crit=["exp"]))

# The algorithm decides nothing by itself.
case("alg-none", f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(USUAL)}.", "algorithm", algorithms=all_algorithms)
case("alg-none-signed", raw(part({"alg": "none", "kid": "rsa"}), part(USUAL)), "algorithm")
case("alg-none-in-capitals", f"{part({'alg': 'NONE'})}.{part(USUAL)}.", "algorithm", algorithms=all_algorithms)
case("hs256-keyed-with-the-public-pem", hs256(pem), "algorithm", algorithms=all_algorithms)
case("hs256-keyed-with-the-modulus", hs256(base64.urlsafe_b64decode(jwk("rsa")["n"] + "==")), "algorithm")
case("hs256-with-a-published-secret", hs256(b"published"), "algorithm", keys="keys-rotated")
case("alg-not-among-those-expected", sign("rsa", "RS512"), "algorithm")
case("alg-of-another-family", raw(part({"alg": "ES256", "kid": "rsa"}), part(USUAL)), "unknown-key")
case("alg-of-another-kind-of-signature", raw(part({"alg": "PS256", "kid": "rsa"}), part(USUAL)), "signature", algorithms=all_algorithms)
case("alg-not-that-of-the-key", sign("rsa-only-512", "RS256"), "unknown-key")
case("alg-unknown", raw(part({"alg": "XX999", "kid": "rsa"}), part(USUAL)), "algorithm", algorithms=all_algorithms)

# Keys.
case("kid-unknown", sign(header={"kid": "other"}), "unknown-key")
case("kid-of-another-key", sign(header={"kid": "rsa-weak"}), "signature")
case("kid-absent-several-keys", sign(header={"kid": None}), "no-key-id")
case("key-not-yet-published", sign("rsa-new"), "unknown-key")
case("key-no-longer-published", good, "unknown-key", keys="keys-rotated")
case("key-for-encryption", sign("rsa-for-encryption"), "unknown-key")
case("key-of-1024-bits", sign("rsa-weak"), "signature")
case("key-on-a-curve-not-offered", sign("p521", "ES512"), "algorithm", algorithms=all_algorithms)
case("key-in-the-header", stranger_signed, "signature")

# Header.
case("typ-of-another-token", sign(header={"typ": "dpop+jwt"}), "type")
case("crit-unknown", raw(part({"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}), part(USUAL)), "critical")
case("crit-b64", raw(part({"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": False}), part(USUAL)), "critical")
case("crit-empty", raw(part({"alg": "RS256", "kid": "rsa", "crit": []}), part(USUAL)), "critical")
case("alg-twice", raw(b64(b'{"alg":"RS256","kid":"rsa","alg":"none"}'), part(USUAL)), "malformed")
case("header-no-object", raw(part(["RS256"]), part(USUAL)), "malformed")
case("header-without-alg", raw(part({"kid": "rsa"}), part(USUAL)), "malformed")

# Form.
case("signature-flipped", altered(good, 2, flipped), "signature")
case("signature-cut", altered(good, 2, lambda text: text[:-8]), "signature")
case("signature-absent", altered(good, 2, lambda _: ""), "signature")
case("payload-altered", altered(good, 1, lambda _: part({**USUAL, "sub": "eve"})), "signature")
case("header-altered", altered(good, 0, lambda _: part({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"})), "signature")
case("signature-with-padding", good + "==", "signature")
case("payload-with-padding", raw(part({"alg": "RS256", "kid": "rsa"}), base64.urlsafe_b64encode(b'{"iss":"i"}').decode()), "malformed")
case("payload-no-json", raw(part({"alg": "RS256", "kid": "rsa"}), b64(b"\xff\x00")), "malformed")
case("payload-no-object", raw(part({"alg": "RS256", "kid": "rsa"}), part("text")), "malformed")
case("four-parts", good + ".x", "malformed")
case("five-parts", f"{part({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.AAAA.AAAA.AAAA.AAAA", "malformed")
case("huge", sign(groups=["x" * 20_000]), "too-long")

# Claims.
case("iss-of-another", sign(iss="https://issuer.example/realms/other"), "issuer")
case("iss-longer", sign(iss=ISSUER + "/"), "issuer")
case("iss-list", sign(iss=[ISSUER]), "claim iss")
case("iss-absent", sign(iss=None), "claim iss")
case("aud-of-another", sign(aud="other"), "audience")
case("aud-list-without-us", sign(aud=["a", "b"]), "audience")
case("aud-list-empty", sign(aud=[]), "audience")
case("aud-absent", sign(aud=None), "claim aud")
case("aud-number", sign(aud=7), "claim aud")
case("expired", sign(exp=NOW), "expired", at=NOW + 60)
case("exp-absent", sign(exp=None), "claim exp")
case("exp-text", sign(exp=str(NOW + 3600)), "claim exp")
case("exp-negative", sign(exp=-1), "claim exp")
case("not-yet", sign(nbf=NOW + 61), "not-yet")
case("nbf-text", sign(nbf="soon"), "claim nbf")

ALL = [
    jwk("rsa", use="sig"),
    jwk("rsa-only-512", alg="RS512"),
    jwk("rsa-for-encryption", use="enc"),
    jwk("rsa-weak"),
    jwk("p256", use="sig", alg="ES256"),
    jwk("p384", key_ops=["verify"]),
    jwk("p521"),
    jwk("ed25519"),
    {"kty": "new kind", "kid": "from the future"},
]
SECRET = {"kty": "oct", "kid": "rsa", "k": b64(b"published")}
SETS = {"keys": ALL, "keys-rotated": [SECRET, jwk("rsa-new"), jwk("p256")], "keys-one": [jwk("rsa")]}
for name, keys in SETS.items():
    (FOLDER / f"{name}.json").write_text(json.dumps({"keys": keys}, indent=1) + "\n")
(FOLDER / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
print(len(cases), "cases", hashlib.sha256((FOLDER / "cases.json").read_bytes()).hexdigest())

"""Clients behind a real nginx that ends TLS and asks for a password, as an ingress does: it sees ciphertext only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import digits
import pytest
from conftest import Server, free_port

from confonnx.client import Client
from confonnx.exceptions import TransportError

pytestmark = pytest.mark.e2e

USER, PASSWORD = "ingress-user", "ingress-password"


@dataclass
class Ingress:
    url: str
    certificate: Path
    access_log: Path


@pytest.fixture(scope="module")
def ingress(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        if os.environ.get("CI"):
            pytest.fail("nginx is not installed: .ci/run should have installed it")
        pytest.skip("nginx is not installed (Debian, Ubuntu: apt install nginx-light)")
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True)
    (folder / "users").write_text(f"{USER}:{hashed.stdout}")
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"""
        daemon off;
        worker_processes 1;
        pid {folder}/pid;
        error_log {folder}/error.log;
        events {{}}
        http {{
            access_log {folder}/access.log;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {certificate};
                ssl_certificate_key {key};
                auth_basic "models";
                auth_basic_user_file {folder}/users;
                client_max_body_size 64m;
                location / {{
                    proxy_pass {server.url};
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                    proxy_set_header Authorization "";
                }}
            }}
        }}
        """
    )
    # As root nginx would switch to another user, who may not write here.
    owner = ["-g", "user root;"] if os.getuid() == 0 else []
    process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), *owner], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 10
    while not (folder / "pid").exists() or not (folder / "pid").read_text().strip():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"nginx did not start: {process.stderr.read().decode() if process.stderr else ''}")
        time.sleep(0.05)
    yield Ingress(f"https://localhost:{port}", certificate, folder / "access.log")
    process.terminate()
    process.communicate(timeout=10)


def run(ingress: Ingress, script: str, trusted: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process of its own, since root certificates are read from its environment."""
    environment = {**os.environ, "URL": ingress.url}
    if trusted:
        environment["SSL_CERT_FILE"] = str(ingress.certificate)
    # Without the variable the client has the machine's own roots, which do not vouch for this certificate.
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, cwd=digits.HERE
    )


PREDICT = """
import os
import digits
from confonnx.client import Client
auth = {auth}
client = Client(os.environ["URL"], auth=auth, enclave_allow_debug=True)
try:
    for _ in range(3):
        found = client.predict({{"image": digits.images()[:5]}})["probabilities"].argmax(1).tolist()
    print("right" if found == digits.labels()[:5].tolist() else "wrong", client.key_invalid_count)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_predicts_through_tls_and_basic_authentication(ingress: Ingress) -> None:
    done = run(ingress, PREDICT.format(auth={"user": USER, "pass": PASSWORD}))
    assert done.stdout.strip() == "right 0", done.stdout + done.stderr
    log = ingress.access_log.read_text()
    assert "POST /.well-known/ohttp-gateway" in log and f" {USER} " in log


def test_a_file_of_certificates_takes_the_place_of_the_machines(ingress: Ingress, server: Server, tmp_path: Path) -> None:
    auth = {"user": USER, "pass": PASSWORD}
    client = Client(ingress.url, auth=auth, enclave_allow_debug=True, ca_file=ingress.certificate)
    assert client.ready()
    (tmp_path / "pass").write_text(PASSWORD)
    done = subprocess.run(
        [str(server.executable.with_name("confonnx")), "models", "--url", ingress.url, "--enclave-allow-debug"]
        + ["--auth-user", USER, "--auth-pass-file", str(tmp_path / "pass"), "--ca-file", str(ingress.certificate)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "READY" in done.stdout, done.stdout + done.stderr


def test_the_wrong_password_is_an_error_that_does_not_show_it(ingress: Ingress) -> None:
    done = run(ingress, PREDICT.format(auth={"user": USER, "pass": "a-wrong-password"}))
    assert "401" in done.stdout and "a-wrong-password" not in done.stdout + done.stderr, done.stdout


def test_a_certificate_nobody_vouches_for_is_refused(ingress: Ingress) -> None:
    done = run(ingress, PREDICT.format(auth={"user": USER, "pass": PASSWORD}), trusted=False)
    assert "right" not in done.stdout and "certificate" in done.stdout.lower(), done.stdout + done.stderr
    hint = "no authority that this machine knows certifies the server: name yours with --ca-file (ca_file)"
    assert hint in done.stdout, done.stdout
    other = ingress.certificate.with_name("other.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-subj", "/CN=another", "-keyout", str(other.with_suffix(".key")), "-out", str(other)],
        check=True,
        capture_output=True,
    )
    with pytest.raises(TransportError, match=re.escape(hint)):
        Client(ingress.url, enclave_allow_debug=True, ca_file=other).ready()


def test_the_command_verifies_through_tls(ingress: Ingress, server: Server, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text(PASSWORD)
    done = subprocess.run(
        [str(server.executable.with_name("confonnx")), "verify", "--url", ingress.url, "--enclave-allow-debug"]
        + ["--auth-user", USER, "--auth-pass-file", str(tmp_path / "pass")],
        env={**os.environ, "SSL_CERT_FILE": str(ingress.certificate)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "INSECURE: accepted" in done.stdout

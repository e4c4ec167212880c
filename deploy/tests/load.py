"""Clients that ask without pause, and what became of each request."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from programs import digits
from confonnx.client import Client
from pods import PATIENCE

CLIENTS = 4


class Load:
    """Clients, each with one request under way; `expected` are keyword arguments of `Client`."""

    def __init__(self, url: str, **expected: Any) -> None:
        self.url, self.expectations = url, expected
        self.images = digits.images()[:50]
        self.right = self.wrong = 0
        self.lost: list[str] = []
        self._done = threading.Event()
        self._lock = threading.Lock()
        client = self.client()
        # The answers expected for each sample come from one server: all others give the same bits.
        self.expected = [client.predict({"image": sample[None]})["probabilities"] for sample in self.images]
        right = sum(int(answer.argmax()) == label for answer, label in zip(self.expected, digits.labels()))
        assert right >= 45
        self._clients = [self.client() for _ in range(CLIENTS)]
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def client(self) -> Client:
        # A policy says itself that the insecure TEE is accepted.
        here: dict[str, Any] = {} if "policy" in self.expectations else {"enclave_allow_debug": True}
        return Client(self.url, **here, **self.expectations)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def rollovers(self) -> int:
        """How often each client at least renewed its key, of which its user notices nothing."""
        return min(client.key_rollover_count for client in self._clients)

    def until(self, more: int) -> None:
        """Waits until so many more requests were answered, which shows that the group still works."""
        wanted, deadline = self.right + more, time.monotonic() + PATIENCE
        while self.right < wanted:
            assert time.monotonic() < deadline, f"{self.right} of {wanted}; lost {self.lost[-3:]}"
            time.sleep(0.05)

    def until_rollovers(self, more: int) -> None:
        wanted, deadline = self.rollovers + more, time.monotonic() + PATIENCE
        while self.rollovers < wanted:
            assert time.monotonic() < deadline, f"{self.rollovers} of {wanted} rollovers; lost {self.lost[-3:]}"
            time.sleep(0.1)

    def report(self, what: str, kills: int = 0) -> None:
        print(
            f"\n{what}: {self.right} answered rightly, {self.wrong} wrongly, {len(self.lost)} lost through {kills} kills;"
            f" each client renewed its key {self.rollovers} times or more {self.lost[:3]}"
        )

    def _ask(self, first: int) -> None:
        client, at = self._clients[first], first
        while not self._done.is_set():
            at = (at + CLIENTS) % len(self.images)
            try:
                answer = client.predict({"image": self.images[at][None]})["probabilities"]
            except Exception as error:  # noqa: BLE001
                with self._lock:
                    self.lost.append(f"{type(error).__name__}: {error}")
                continue
            with self._lock:
                if np.array_equal(answer, self.expected[at]):
                    self.right += 1
                else:
                    self.wrong += 1

"""Spans as an OpenTelemetry collector gets them, read by OpenTelemetry's own messages."""

from __future__ import annotations

import http.server
import threading
import time
from typing import Callable, Iterator

import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from conftest import OPERATOR, Proxy, Server, stop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from test_triton_grpc import vectors as grpc_vectors
from test_triton_http import vectors

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """A collector that keeps the spans that it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.fields: list[str | None] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                export = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                collector.fields.append(self.headers["x-team"])
                for resource in export.resource_spans:
                    names = {one.key: one.value.string_value for one in resource.resource.attributes}
                    collector.services.add(names["service.name"])
                    for scope in resource.scope_spans:
                        collector.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()


def facts(span: Span) -> dict:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_span_for_each_request(
    start_proxy: Callable[..., Proxy], server: Server, collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "beside-the-program")
    (tmp_path / "token").write_text(OPERATOR)
    proxy = start_proxy("--url", server.url, "--enclave-allow-debug", "--auth-key-file", tmp_path / "token")
    before = time.time_ns()
    with tritonclient.http.InferenceServerClient(proxy.address) as client:
        client.infer("add", vectors(), headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        client.is_model_ready("none")
        client.infer("add", vectors(), headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    with tritonclient.grpc.InferenceServerClient(proxy.grpc) as client:
        client.infer("add", grpc_vectors())
    assert requests.get(proxy.url + "/metrics").ok
    # The last spans are sent when the proxy ends.
    assert stop(proxy.process) == 0
    names = [span.name for span in collector.spans]
    assert names == [
        "POST /v2/models/{model}/infer",
        "GET /v2/models/{model}/ready",
        "POST /inference.GRPCInferenceService/ModelInfer",
    ], "one that is not to be recorded is not, and metrics are no request of a program"
    infer, ready, call = collector.spans
    assert (infer.trace_id.hex(), infer.parent_span_id.hex()) == (TRACE, PARENT)
    assert facts(infer) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "http.response.status_code": 200,
    }
    assert before <= infer.start_time_unix_nano < infer.end_time_unix_nano <= time.time_ns()
    assert ready.trace_id != infer.trace_id and not ready.parent_span_id
    assert facts(ready)["http.response.status_code"] == 404
    assert all(span.kind == Span.SPAN_KIND_SERVER and len(span.span_id) == 8 for span in collector.spans)
    assert not any(span.status.code == Status.STATUS_CODE_ERROR for span in collector.spans)
    assert (collector.services, set(collector.fields)) == ({"beside-the-program"}, {"blue"})
    assert call.trace_id != ready.trace_id
    # Spans have nothing of what was asked.
    assert b"add" not in b"".join(span.SerializeToString() for span in collector.spans)


def test_what_went_wrong_is_in_them(
    start_proxy: Callable[..., Proxy], server: Server, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.url + "/v1/traces")
    proxy = start_proxy("--url", server.url, "--enclave-hash", "ab" * 32)
    assert requests.get(proxy.url + "/v2/models/add").status_code == 503
    patience = time.monotonic() + 30
    while not collector.spans and time.monotonic() < patience:
        time.sleep(0.05)
    [span] = collector.spans
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert facts(span)["error.type"] == "server-not-trusted"
    assert collector.services == {"confonnx-proxy"}


def test_a_collector_that_is_not_there_keeps_nobody_waiting(
    start_proxy: Callable[..., Proxy], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    proxy = start_proxy("--url", server.url, "--enclave-allow-debug")
    for _ in range(20):
        assert requests.get(proxy.url + "/v2/health/live").ok
    assert stop(proxy.process) == 0

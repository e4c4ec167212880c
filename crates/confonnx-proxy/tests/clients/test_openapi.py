"""Requests that `schemathesis` makes of KServe's published OpenAPI are answered as it says, or refused."""

from __future__ import annotations

import json

import requests
import schemathesis
from conftest import Proxy
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints


def published() -> dict:
    """The OpenAPI by which KServe's own server describes its API."""
    models = ModelRepository()
    app = FastAPI(title="Open Inference Protocol")
    register_v2_endpoints(app, DataPlane(models), ModelRepositoryExtension(models))
    return app.openapi()


schema = schemathesis.openapi.from_dict(published())
PATIENT = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)


def ask(case: schemathesis.Case, proxy: Proxy) -> requests.Response:
    response = case.call(base_url=proxy.url, timeout=60)
    where = f"{case.method} {case.formatted_path}: {response.status_code} {response.text[:200]}"
    assert response.status_code < 500, where
    if response.status_code >= 400 and case.method != "HEAD":
        assert isinstance(json.loads(response.content)["error"], str), where
    if response.status_code == 200:
        case.validate_response(response, checks=FITS)
    return response


FITS = [
    schemathesis.specs.openapi.checks.response_schema_conformance,
    schemathesis.specs.openapi.checks.content_type_conformance,
]


@schema.parametrize()
@PATIENT
def test_whatever_is_asked(case: schemathesis.Case, proxy: Proxy) -> None:
    ask(case, proxy)


@schema.include(path_regex="model_name").exclude(path_regex="load").parametrize()
@PATIENT
def test_whatever_a_model_is_asked(case: schemathesis.Case, proxy: Proxy) -> None:
    case.path_parameters["model_name"] = "add"
    if "model_version" in case.path_parameters:
        case.path_parameters["model_version"] = "1"
    response = ask(case, proxy)
    if case.method == "GET" and not case.path.endswith("/infer"):
        assert response.status_code == 200

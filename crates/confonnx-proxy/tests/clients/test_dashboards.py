"""The dashboards for Grafana: every metric exists, every query is PromQL, every panel is one that Grafana's types describe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Iterator

import promql_parser
import pytest
from conftest import ROOT
from grafana_foundation_sdk.models import dashboard as grafana

DASHBOARDS = ROOT / "docs" / "samples" / "dashboards"
NAMES = ["server", "proxy"]


def read(name: str) -> dict:
    return json.loads((DASHBOARDS / f"{name}.json").read_text())


def queries(name: str) -> Iterator[str]:
    for panel in read(name)["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def known() -> set[str]:
    """The metrics' names of the generated pages; a histogram has three."""
    names = set()
    for page in ("metrics.md", "proxy-metrics.md"):
        text = (ROOT / "docs" / "reference" / page).read_text()
        for name, kind in re.findall(r"^\| `(\w+)` \| (\w+) \|", text, re.MULTILINE):
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    assert "confonnx_requests_total" in names and "nv_inference_request_success" in names
    return names


def asked(expression: str) -> set[str]:
    """The names of metrics in a query, as a parser finds them."""
    found = set()

    def walk(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
            if (child := getattr(node, name, None)) is not None:
                walk(child)
        for child in getattr(node, "args", None) or []:
            walk(child)

    walk(promql_parser.parse(expression.replace("$__rate_interval", "1m")))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_exists(name: str) -> None:
    names = known()
    for expression in queries(name):
        metrics = asked(expression)
        assert metrics and metrics <= names, f"{expression}: {metrics - names}"
    for variable in read(name)["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            assert metric in names and label in ("instance", "upstream")


def test_every_metric_that_says_that_something_is_wrong_is_shown() -> None:
    shown = {metric for name in NAMES for expression in queries(name) for metric in asked(expression)}
    wrong = {name for name in known() if re.search(r"fail|missing|stale|dropped|ended|errors|faults", name)}
    assert wrong <= shown, wrong - shown


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_own_types_read_it_whole(name: str) -> None:
    written = read(name)
    again = json.loads(json.dumps(grafana.Dashboard.from_json(written).to_json(), default=lambda value: value.to_json()))

    def lost(before: object, after: object, where: str) -> Iterator[str]:
        if isinstance(before, dict) and isinstance(after, dict):
            for key, value in before.items():
                if key in after:
                    yield from lost(value, after[key], f"{where}.{key}")
                elif value not in (None, {}, [], "", 0, False):
                    yield f"{where}.{key}"
        elif isinstance(before, list) and isinstance(after, list):
            for place, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from lost(one, other, f"{where}[{place}]")
        elif before != after and not (before is None and after == 0):
            yield f"{where}: {before} became {after}"

    assert list(lost(written, again, name)) == []
    places = [panel["gridPos"] for panel in written["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    taken = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(taken) == len(set(taken)), "two panels in one place"


def test_they_are_what_the_script_makes() -> None:
    before = {name: (DASHBOARDS / f"{name}.json").read_text() for name in NAMES}
    subprocess.run([sys.executable, ROOT / "scripts" / "make-dashboards"], check=True, stdout=subprocess.DEVNULL)
    assert {name: (DASHBOARDS / f"{name}.json").read_text() for name in NAMES} == before

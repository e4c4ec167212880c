"""The chart, rendered by Helm's own engine (helm-python-sdk carries it as a library)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

DEPLOY = Path(__file__).resolve().parents[1]
CHART = DEPLOY / "chart"
PRESETS = sorted(path.stem for path in (CHART / "presets").glob("*.yaml"))

Values = dict[str, Any]
Object = dict[str, Any]


def merged(*layers: Values) -> Values:
    """Values of several layers: later ones win, tables are merged, as Helm does with several -f."""
    out: Values = {}
    for layer in layers:
        for key, value in layer.items():
            old = out.get(key)
            out[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def preset(name: str) -> Values:
    found: Values = yaml.safe_load((CHART / "presets" / f"{name}.yaml").read_text())
    return found


def texts(values: Values, name: str = "confonnx") -> dict[str, str]:
    """The text that each template becomes, after the values were checked against the schema."""
    return _render(json.dumps(values), name)


@cache
def _render(values: str, name: str) -> dict[str, str]:
    with Chart.load(CHART) as chart:
        chart.validate_schema(json.loads(values))
        return chart.render(json.loads(values), name=name, namespace="models")


def objects(values: Values, name: str = "confonnx") -> list[Object]:
    """All objects that the chart makes, without NOTES."""
    rendered = texts(values, name)
    files = [text for path, text in sorted(rendered.items()) if not path.endswith("NOTES.txt")]
    return [found for text in files for found in yaml.safe_load_all(text) if found]


def one(found: list[Object], kind: str, name: str | None = None) -> Object:
    fitting = [x for x in found if x["kind"] == kind and name in (None, x["metadata"]["name"])]
    assert len(fitting) == 1, f"expected one {kind} {name or ''}, found {len(fitting)}"
    return fitting[0]

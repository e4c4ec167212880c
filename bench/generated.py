"""The blocks of docs/measurements/generation.md, from what `make bench-generation` found (data/generation.json)."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "measurements" / "generation.md"
# By the names that bench/generation.py has for them.
PEERS = {
    "llama": "llama.cpp's server",
    "fastapi": "FastAPI around onnxruntime-genai",
    "triton": "Triton's Python backend around onnxruntime-genai",
}
OURS = "**confonnx**, sealed and streamed through the proxy"
LOOP = {"loop": "ONNX Runtime's own loop of eight rows, in process, in the clear"}


def ways(count: str) -> dict[str, str]:
    """How `count` callers were answered, and what the tables call it."""
    return {count: OURS} | {f"{peer}_{count}": f"{name}, in the clear" for peer, name in PEERS.items()}


def blocks(found: dict[str, Any]) -> dict[str, str]:
    return {"machine": machine(found), "one": one(found), "many": many(found), "goals": goals(found), "pace": pace(found), "memory": memory(found)}


def values(found: dict[str, Any], way: str, key: str) -> list[float]:
    return [each[key] for each in found["ways"].get(way, [])]


def spread(numbers: list[float], form: str) -> str:
    return f"{statistics.median(numbers):{form}} ({min(numbers):{form}}–{max(numbers):{form}})"


def beside(found: dict[str, Any], way: str, key: str) -> list[float]:
    """Of each round, beside genai's in it."""
    return [one / other for one, other in zip(values(found, way, key), values(found, "genai", key))]


def machine(found: dict[str, Any]) -> str:
    it = found["machine"]
    text = (
        f"{it['cpu']}, {it['cores']} cores, Linux {it['linux']}, load average {found['load']:.2f} before the run. ONNX Runtime "
        f"{it['onnxruntime']}, onnxruntime-genai {it['genai']}, llama.cpp of xllamacpp {it['xllamacpp']} (a wheel for any x86-64, without "
        f"AVX-512). {found['rounds']} rounds in turns, for each of which all were started anew; medians, with the least and the most."
    )
    for peer, reason in found["absent"].items():
        text += f" Absent: {PEERS[peer]} ({reason.splitlines()[0].rstrip(':')})."
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def one(found: dict[str, Any]) -> str:
    lines = ["| one caller | tokens/s | of genai | 128 tokens to the first, ms | of genai |", "| --- | --: | --: | --: | --: |"]
    for way, name in ({"genai": "onnxruntime-genai, in process, in the clear"} | ways("one")).items():
        if not values(found, way, "decode"):
            continue
        part = [spread(beside(found, way, key), ".2f") if way != "genai" else "–" for key in ("decode", "first_s")]
        first = spread([1000 * seconds for seconds in values(found, way, "first_s")], ".0f")
        lines.append(f"| {name} | {spread(values(found, way, 'decode'), '.0f')} | {part[0]} | {first} | {part[1]} |")
    return "\n".join(lines)


def many(found: dict[str, Any]) -> str:
    lines = ["| eight callers | tokens/s | of genai alone | with their prompts, tokens/s |", "| --- | --: | --: | --: |"]
    for way, name in (LOOP | ways("many")).items():
        if values(found, way, "decode"):
            part, whole = spread(beside(found, way, "decode"), ".2f"), spread(values(found, way, "whole"), ".0f")
            lines.append(f"| {name} | {spread(values(found, way, 'decode'), '.0f')} | {part} | {whole} |")
    return "\n".join(lines)


def goals(found: dict[str, Any]) -> str:
    def row(what: str, sign: str, goal: float, measured: float) -> str:
        met = measured >= goal if sign == "≥" else measured <= goal
        return f"| {what} | {sign} {goal:g} | {measured:.2f} | {'met' if met else f'missed by {abs(measured - goal):.2f}'} |"

    median = statistics.median
    rows = [
        row("one caller's tokens a second, of genai's", "≥", 0.95, median(beside(found, "one", "decode"))),
        row("eight callers', of genai's alone", "≥", 2, median(beside(found, "many", "decode"))),
        row("time to the first token, of genai's", "≤", 1.1, median(beside(found, "one", "first_s"))),
    ]
    for way, who in PEERS.items():
        for mine, count in (("one", "one caller"), ("many", "eight callers")):
            others = values(found, f"{way}_{mine}", "decode")
            if others:
                ratio = median([a / b for a, b in zip(values(found, mine, "decode"), others) if b])
                rows.append(row(f"{count}, of {who}", "≥", 1, ratio))
    return "\n".join(["| what | goal | measured | |", "| --- | --- | --: | --- |", *rows])


def pace(found: dict[str, Any]) -> str:
    lines = ["| pieces of the answer | tokens/s | to the first token, ms |", "| --- | --: | --: |"]
    ways = [("one", "as they come")] + [(way, f"each {way.removeprefix('pace')} ms") for way in found["ways"] if way.startswith("pace")]
    for way, name in ways:
        first = spread([1000 * seconds for seconds in values(found, way, "first_s")], ".0f")
        lines.append(f"| {name} | {spread(values(found, way, 'decode'), '.0f')} | {first} |")
    return "\n".join(lines)


def memory(found: dict[str, Any]) -> str:
    it = found.get("memory")
    if not it:
        return "Not measured."
    mb = 1e6
    first, last = it["points"][0], it["points"][-1]
    grown = (last["bytes"] - it["points"][1]["bytes"]) / mb
    limit = (it["model"] + it["budget"]) / mb + 60
    most = max(it["after_eight_long"], *(point["bytes"] for point in it["points"]))
    text = (
        f"Server and box: {first['bytes'] / mb:.0f} MB after {first['answers']} answers, {last['bytes'] / mb:.0f} MB after {last['answers']:,} "
        f"({grown:+.1f} MB since the {it['points'][1]['answers']:,}th), {it['after_eight_long'] / mb:.0f} MB after eight at once of 256 tokens. "
        f"The goal, model ({it['model'] / mb:.0f} MB) and memory for keys and values ({it['budget'] / mb:.0f} MB) and 60 MB, is "
        f"{limit:.0f} MB: {'met' if most / mb <= limit else 'missed'}."
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def write(found: dict[str, Any], page: Path = PAGE) -> None:
    """Puts the blocks into the page."""
    text = page.read_text()
    for name, block in blocks(found).items():
        start = text.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n")
        text = text[:start] + block + "\n" + text[text.index("<!-- end -->", start) :]
    page.write_text(text)

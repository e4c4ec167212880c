"""What `make bench-generation` does: how fast a language model answers behind the seal, beside onnxruntime-genai in one process.

    python bench/generation.py --programs target/release --rounds 5

One run, one machine, the same file (SmolLM2-135M-Instruct, 8 bits): in each round genai reads a prompt of 128 tokens and goes
on, in this process and in the clear; then one caller asks the server through `confonnx proxy`, sealed and streamed; then
eight at once. Writes docs/measurements/data/generation.json, of which docs/measurements/generation.md tells.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "conformance"))

from generation import Bare, Genai, served  # noqa: E402

PROMPT, ANSWER, CALLERS = 128, 128, 8
END = 2


def prompt(number: int) -> list[int]:
    """A prompt of tokens that mean nothing, others for each number, so that nothing that was read before is of use."""
    return [1000 + (number * 7919 + at * 104729) % 40000 for at in range(PROMPT)]


def genai(model: Genai, number: int) -> dict[str, float]:
    start = time.perf_counter()
    generator = model.generator(PROMPT + ANSWER)
    generator.append_tokens(prompt(number))
    generator.generate_next_token()
    first = time.perf_counter()
    count = 1
    while count < ANSWER and not generator.is_done():
        generator.generate_next_token()
        generator.get_next_tokens()
        count += 1
    return {"first_s": first - start, "decode": (count - 1) / (time.perf_counter() - first), "tokens": count}


def ask(url: str, number: int) -> tuple[float, float, float, int]:
    """When the answer was asked for, when its first and last token came, and how many tokens came."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=600)
    body = {
        "model": "chat", "prompt": prompt(number), "max_tokens": ANSWER, "temperature": 0, "stream": True,
        # All answers have the same length, because the end is never drawn.
        "logit_bias": {str(END): -100, "0": -100}, "stream_options": {"include_usage": True},
    }  # fmt: skip
    asked = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    first = last = 0.0
    tokens = 0
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        last = time.perf_counter()
        first = first or last
        usage = json.loads(line[6:]).get("usage")
        tokens = usage["completion_tokens"] if usage else tokens
    connection.close()
    return asked, first, last, tokens


def one(url: str, number: int) -> dict[str, float]:
    asked, first, last, tokens = ask(url, number)
    return {"first_s": first - asked, "decode": (tokens - 1) / (last - first), "tokens": tokens}


def many(url: str, number: int) -> dict[str, float]:
    found: list[tuple[float, float, float, int]] = []
    threads = [threading.Thread(target=lambda n=n: found.append(ask(url, n))) for n in range(number, number + CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked, end = min(each[0] for each in found), max(each[2] for each in found)
    # `decode` counts while all answers go on, `whole` with their prompts.
    together = max(each[1] for each in found)
    last = min(each[2] for each in found)
    share = [each[3] * max(0.0, last - together) / (each[2] - each[1]) for each in found]
    return {"decode": sum(share) / (last - together), "whole": sum(each[3] for each in found) / (end - asked)}


def memory(pid_of: str) -> int:
    """Resident bytes of the processes of that name that this program started."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*/status"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        if text.startswith(f"Name:\t{pid_of[:15]}\n"):
            total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("--programs", type=Path, default=default, help="where confonnx-server and confonnx are")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    folder = ROOT / ".cache" / "chat"
    kinds: dict[str, list[dict[str, float]]] = {"genai": [], "one": [], "many": []}
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as other, served(folder, args.programs, Path(scratch)) as url:
        model = Genai(folder, Path(other))
        ends = Bare(folder).ends
        assert END in ends
        for number in range(args.rounds + 1):
            found = {"genai": genai(model, number), "one": one(url, 100 + number), "many": many(url, 1000 + 8 * number)}
            # Round 0 is to warm up, and is not counted.
            for kind, values in found.items() if number else ():
                kinds[kind].append(values)
        resident = memory("confonnx-server")
    load = os.getloadavg()[0]

    def rows(kind: str, key: str) -> list[float]:
        return [values[key] for values in kinds[kind]]

    def told(values: list[float], digits: int) -> str:
        return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"

    def ratio(one: list[float], other: list[float]) -> str:
        return told([x / y for x, y in zip(one, other)], 2)

    base = rows("genai", "decode")
    table = [
        ("genai, in process, in the clear: decode, tokens/s", told(base, 1), ""),
        ("one caller, sealed and streamed: decode, tokens/s", told(rows("one", "decode"), 1), ratio(rows("one", "decode"), base)),
        ("eight callers: decode, tokens/s", told(rows("many", "decode"), 1), ratio(rows("many", "decode"), base)),
        ("eight callers: with their prompts, tokens/s", told(rows("many", "whole"), 1), ratio(rows("many", "whole"), base)),
        ("genai: 128 tokens to the first, ms", told([1000 * s for s in rows("genai", "first_s")], 0), ""),
        ("one caller: the same, ms", told([1000 * s for s in rows("one", "first_s")], 0), ratio(rows("one", "first_s"), rows("genai", "first_s"))),
    ]
    print("| what | median (range) | to genai |\n|---|--:|--:|")
    for row in table:
        print("| " + " | ".join(row) + " |")
    print(f"server and box: {resident / 1e6:.0f} MB resident; load {load:.1f}; {args.rounds} rounds")
    data = {"rounds": args.rounds, "load": load, "resident": resident, **kinds}
    (ROOT / "docs" / "measurements" / "data" / "generation.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()

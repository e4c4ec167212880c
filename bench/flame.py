"""Draw a flame graph of a server under load: python bench/flame.py SERVER BENCH MODEL OUT.svg, with `perf` installed.

The server runs under `perf record` while the bench asks it for sealed answers. Widths are the part of the server's CPU
time; a frame lies on its caller. Frames below 0.5% are left out.
"""

import collections
import html
import os
import pathlib
import re
import subprocess
import sys
import tempfile

WIDTH, ROW, LEAST = 1200, 17, 0.005
STYLE = """
text { font: 11px ui-monospace, "SF Mono", Menlo, Consolas, monospace; fill: #1f2328; pointer-events: none; }
.note { font: 13px system-ui, sans-serif; fill: #59636e; }
.crypto { fill: #8ec5ff; } .kernel { fill: #d0d7de; } .onnx { fill: #9be9a8; } .ours { fill: #ffc680; } .rest { fill: #eaeef2; }
rect { stroke: #ffffff; stroke-width: 0.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .note { fill: #9198a1; } rect { stroke: #0d1117; }
  .crypto { fill: #1f4f8a; } .kernel { fill: #3d444d; } .onnx { fill: #1f6f3a; } .ours { fill: #8a5215; } .rest { fill: #262c36; }
}
"""
KINDS = {"crypto": "cryptography", "onnx": "ONNX Runtime", "kernel": "kernel", "ours": "confonnx", "rest": "the rest"}


class Frame:
    def __init__(self) -> None:
        self.count = 0
        self.callees: dict[tuple[str, str], Frame] = collections.defaultdict(Frame)

    def depth(self, least: float) -> int:
        return 1 + max((frame.depth(least) for frame in self.callees.values() if frame.count >= least), default=0)


def stacks(text: str):
    """Stacks of `perf script -F ip,sym,dso`, outermost frame first; each frame has a name and a kind."""
    for block in text.split("\n\n"):
        stack = []
        for line in block.splitlines():
            match = re.match(r"\s*[0-9a-f]+ (.+?) \((.*)\)$", line)
            if match:
                stack.append((clean(match[1]), kind(match[1], match[2])))
        if stack:
            yield stack[::-1]


def clean(symbol: str) -> str:
    """A symbol's name without hashes, generic arguments and offsets."""
    symbol = re.sub(r"\+0x[0-9a-f]+$|::h[0-9a-f]{16}|\[[0-9a-f]{16}\]", "", symbol)
    while (shorter := re.sub(r"(?<!^)(::)?<[^<>]*>", "", symbol)) != symbol:
        symbol = shorter
    return symbol.replace("aws_lc_0_", "aws_lc_")


def kind(symbol: str, dso: str) -> str:
    if "kernel" in dso:
        return "kernel"
    if "onnxruntime" in dso:
        return "onnx"
    if re.search(r"aws_lc|sha256|sha512|chacha|aes|x25519|mlkem|keccak|gcm|hkdf", symbol, re.IGNORECASE):
        return "crypto"
    return "ours" if "confonnx" in symbol else "rest"


def fold(all_stacks) -> Frame:
    root = Frame()
    for stack in all_stacks:
        frame = root
        frame.count += 1
        for key in stack:
            frame = frame.callees[key]
            frame.count += 1
    return root


def draw(root: Frame, note: str) -> str:
    least = root.count * LEAST
    rows = root.depth(least)
    height = rows * ROW + 40
    parts: list[str] = []

    def place(frame: Frame, x: float, level: int) -> None:
        ordered = sorted(frame.callees.items())
        for (name, what), callee in ordered:
            width = callee.count / root.count * WIDTH
            if callee.count >= least:
                y = height - 12 - (level + 1) * ROW
                share = f"{callee.count / root.count:.1%}"
                room = int((width - 6) / 6.7)
                label = name if len(name) <= room else name[: max(0, room - 1)] + "…" if room > 3 else ""
                parts.append(
                    f'<g><title>{html.escape(name)} {share}</title><rect class="{what}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
                    f'height="{ROW}" rx="1"/><text x="{x + 3:.1f}" y="{y + 12}">{html.escape(label)}</text></g>'
                )
                place(callee, x, level + 1)
            x += width

    place(root, 0.0, 0)
    legend, x = [], WIDTH - 500
    for what, words in KINDS.items():
        legend.append(f'<rect class="{what}" x="{x}" y="8" width="12" height="12"/><text class="note" x="{x + 17}" y="19">{words}</text>')
        x += 38 + 7 * len(words)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="Flame graph">\n<title>Flame graph</title>\n<style>{STYLE}</style>\n'
        f'<text class="note" x="0" y="19">{html.escape(note)}</text>\n' + "\n".join(legend + parts) + "\n</svg>\n"
    )


def main() -> None:
    server, bench, model, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        wrapper = pathlib.Path(work) / "profiled"
        record = f"perf record -q -F 999 --call-graph dwarf,16384 -o {work}/perf.data --"
        wrapper.write_text(f'#!/bin/sh\nexec {record} {pathlib.Path(server).resolve()} "$@"\n')
        wrapper.chmod(0o755)
        load = f"--model {model} --no-peers --clients 8 --rounds 1 --seconds 2 --server {wrapper} --out {work}/results.json"
        subprocess.run([bench, *load.split()], check=True, stdout=subprocess.DEVNULL)
        script = ["perf", "script", "--no-inline", "-F", "ip,sym,dso", "-i", f"{work}/perf.data"]
        text = subprocess.run(script, check=True, capture_output=True, text=True, errors="replace", env=os.environ).stdout
    root = fold(stacks(text))
    if not root.count:
        raise SystemExit("perf found nothing: is it allowed to (kernel.perf_event_paranoid)?")
    note = f"confonnx-server, {model}, sealed by 8 clients: {root.count:,} samples of CPU time"
    pathlib.Path(out).write_text(draw(root, note))
    print(out)


if __name__ == "__main__":
    main()

"""The plot of docs/measurements/performance.md: requests per second, a panel for each model."""

from html import escape

WIDTH, LEFT, RIGHT, BAR, GAP, TITLE = 860, 212, 120, 18, 8, 34
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 14px; }
.note, .axis { fill: #59636e; }
.ours { fill: #0969da; } .bare { fill: #59636e; } .peer { fill: #afb8c1; }
.spread { stroke: #1f2328; stroke-width: 1; }
.mine { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .note, .axis { fill: #9198a1; }
  .ours { fill: #4493f8; } .bare { fill: #9198a1; } .peer { fill: #545d68; }
  .spread { stroke: #f0f6fc; }
}
"""


def throughput(found) -> str:
    """Linear bars from 0, cut where they leave the panel; their whiskers are the least and the most of the rounds."""
    body, y = [], 8
    for model in found.models:
        clients = found.most_clients(model)
        rows = [row for row in found.select(model=model, clients=clients) if shown(row)]
        rows.sort(key=lambda row: -row["requests_per_s"])
        rates = [row["requests_per_s_max"] for row in rows]
        others = [row["requests_per_s_max"] for row in rows if row["server"] != "bare"]
        # Bare ONNX Runtime needs no request at all: beside its bar for a tiny model the others would be invisible.
        scale = max(rates if max(rates) < 3 * max(others) else others) * 1.02
        full = (WIDTH - LEFT - RIGHT) / scale
        bytes = "{:,} bytes in, {:,} out".format(*found.run["bytes"][model])
        body.append(f'<text class="title" x="0" y="{y + 14}">{escape(model)}</text>')
        body.append(
            f'<text class="note" x="{WIDTH}" y="{y + 14}" text-anchor="end">{bytes}, {clients} clients; requests/s</text>'
        )
        y += TITLE - 10
        for row in rows:
            body += bar(row, y, full, scale)
            y += BAR + GAP
        y += TITLE - 10
    height = y - 10
    title = "Requests per second by model and server"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{title}">\n<title>{title}</title>\n<style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n"
    )


def shown(row) -> bool:
    return row["server"] != "echo" and row["mode"] != "sealed, library"


def bar(row, y: float, full: float, scale: float) -> list[str]:
    kind = {"bare": "bare", "confonnx": "ours"}.get(row["server"], "peer")
    name = "bare ONNX Runtime" if kind == "bare" else f"{row['server']}, {row['mode']}"
    cut = row["requests_per_s"] > scale
    width = min(row["requests_per_s"], scale) * full
    middle = y + BAR / 2
    mine = " mine" if kind == "ours" else ""
    parts = [
        f'<text class="name{mine}" x="{LEFT - 8}" y="{middle + 4.5}" text-anchor="end">{escape(name)}</text>',
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width - 40 * cut:.1f}" height="{BAR}" rx="2"/>',
    ]
    if cut:  # The end of a bar that does not fit, behind a slanted gap.
        at = LEFT + width - 34
        parts.append(f'<path class="{kind}" d="M{at:.1f} {y + BAR}l6 {-BAR}h28v{BAR}z"/>')
    end = LEFT + width
    if not cut:
        low, high = (LEFT + row[key] * full for key in ("requests_per_s_min", "requests_per_s_max"))
        parts.append(
            f'<path class="spread" fill="none" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>'
        )
        end = max(end, high)
    value = row["requests_per_s"]
    text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    parts.append(f'<text class="value{mine}" x="{end + 8:.1f}" y="{middle + 4.5}">{text}</text>')
    return parts

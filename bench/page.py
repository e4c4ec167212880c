"""Write docs/measurements/{performance,scaling,proxy}.md from what the bench found: python bench/page.py [FOLDER].

With a FOLDER, those results that it has are first copied to docs/measurements/data/, which is committed. Then every block between
`<!-- NAME -->` and `<!-- end -->` of these pages and README.md is made anew from there, and so is the plot. What is outside of the blocks
is written by hand and has no figures.
"""

import argparse
import json
import pathlib
import re
import shutil

import plot
import proxied
import scaling

DOCS = pathlib.Path(__file__).parents[1] / "docs" / "measurements"
DATA = DOCS / "data"
LOAD = 1e5
THREADS = "sealed answers a second to 1 and to 8 clients"
FILES = ("results.json", "run.json", "resources.json")
PROXY = "proxy.json"


class Results:
    """What the bench found, from its files."""

    def __init__(self, folder: pathlib.Path):
        self.rows, self.run, self.resources = (json.loads((folder / name).read_text()) for name in FILES)
        self.proxy = json.loads((folder / PROXY).read_text())
        self.models = list(dict.fromkeys(row["model"] for row in self.rows))

    def select(self, **wanted):
        """The rows of the closed loop that have all these values."""
        rows = [row for row in self.rows if row["offered_per_s"] is None]
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def one(self, **wanted):
        rows = self.select(**wanted)
        return rows[0] if len(rows) == 1 else None

    def most_clients(self, model):
        return max(row["clients"] for row in self.select(model=model))

    def numbers(self):
        """Plain numbers of the resource measurements, by name."""
        return {name: value for finding in self.resources for name, value in finding["numbers"].items()}


def number(value: float) -> str:
    """The number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: str, rows: list[list[str]]) -> str:
    columns = head.split("|")
    align = ["---" if at < 2 else "--:" for at in range(len(columns))]
    lines = [columns, align, *rows]
    return "\n".join("| " + " | ".join(cell.strip() for cell in line) + " |" for line in lines)


def ratio(row: dict, prefix: str, name: str) -> str:
    # Older results have no such ratio.
    if row.get(name) is None:
        return "–"
    return f"{row[name]:.2f} ({row[prefix + '_min']:.2f}–{row[prefix + '_max']:.2f})"


def machine(found: Results) -> str:
    it = found.run["machine"]
    peers = "; ".join(f"{name}: {versions}" for name, versions in found.run["peers"].items())
    busy = ""
    if it["load_before"] > it["cores"] / 4:
        busy = (
            f"**The load average was {it['load_before']:g} before the run, by what was built for it or by other work: trust ratios "
            "more than figures.**\n\n"
        )
    return (
        busy + f"{it['cpu']}, {it['cores']} cores, Linux {it['linux']}. confonnx {it['confonnx']}, ONNX Runtime {it['onnxruntime']}, no TEE "
        f"(`--debug`); servers and clients share the machine. {found.run['rounds']} rounds of {found.run['seconds']:g} s each, in turns; "
        f"medians, with the least and the most. Every answer was bit-equal to bare ONNX Runtime's.\n\nPeers: {peers}."
    )


def throughput(found: Results) -> str:
    text = []
    for model in found.models:
        clients = found.most_clients(model)
        rows = sorted(found.select(model=model, clients=clients), key=lambda row: -row["requests_per_s"])
        rows = [row for row in rows if row["server"] != "echo"]
        sizes = "{:,} bytes in, {:,} out".format(*found.run["bytes"][model])
        head = "server | mode | requests/s | to bare | to the fastest peer | p50 µs | p99 µs | CPU µs, server | of the fastest peer's | CPU µs, client"
        cells = [
            [
                row["server"],
                row["mode"],
                number(row["requests_per_s"]),
                ratio(row, "ratio", "ratio_to_bare"),
                ratio(row, "peer_ratio", "ratio_to_fastest_peer"),
                number(row["p50_us"]),
                number(row["p99_us"]),
                number(row["server_cpu_us"]),
                ratio(row, "cpu_ratio", "cpu_ratio"),
                "–" if row["server"] == "bare" else number(row["client_cpu_us"]),
            ]
            for row in rows
        ]
        text.append(f"**{model}**, {sizes}, {clients} clients\n\n{table(head, cells)}")
        text += absent(found, model)
    return "\n\n".join(text)


def absent(found: Results, model: str) -> list[str]:
    missing = [item for item in found.run["absent"] if item["model"] == model]
    return [f"Absent: {item['server']} ({item['reason'].splitlines()[0]})." for item in missing]


def latency(found: Results) -> str:
    rows = [row for row in found.rows if row["offered_per_s"] is None and row["clients"] == 1 and row["server"] != "echo"]
    names = list(dict.fromkeys((row["server"], row["mode"]) for row in rows))
    cells = []
    for server, mode in names:
        cell = [server, mode]
        for model in found.models:
            row = found.one(model=model, clients=1, server=server, mode=mode)
            cell.append("–" if row is None else f"{number(row['p50_us'])} / {number(row['p99_us'])}")
        cells.append(cell)
    return table("server | mode | " + " | ".join(found.models), cells)


def open_loop(found: Results) -> str:
    cells = []
    for row in found.rows:
        if row["offered_per_s"] is None or row["server"] == "echo":
            continue
        keeps_up = row["requests_per_s"] > 0.97 * row["offered_per_s"]
        cells.append(
            [
                row["model"],
                f"{row['server']}, {row['mode']}",
                number(row["offered_per_s"]),
                number(row["requests_per_s"]),
                number(row["p50_us"]) if keeps_up else "falls behind",
                number(row["p99_us"]) if keeps_up else "–",
            ]
        )
    return table("model | server | offered/s | answered/s | p50 µs | p99 µs", cells)


def targets(found: Results) -> str:
    """Each target, what was measured, and by how much that misses it."""
    cells = []

    def row(what: str, wanted: str, value: float | None, limit: float, unit: str, at_least: bool) -> None:
        if value is None:
            cells.append([what, wanted, "not measured", ""])
            return
        met = value >= limit if at_least else value <= limit
        by = f"missed by {number(abs(value - limit))}{unit}"
        cells.append([what, wanted, f"{number(value)}{unit}", "met" if met else by])

    def value(name: str, **wanted) -> float | None:
        found_row = found.one(**wanted)
        return None if found_row is None else found_row.get(name)

    for model, clients, limit in (("squeezenet", 8, 0.95), ("minilm", 8, 0.95), ("ensemble", 1, 0.9), ("ensemble", 8, 0.9)):
        for mode in ("sealed", "sealed, library"):
            measured = value("ratio_to_bare", model=model, clients=clients, server="confonnx", mode=mode)
            row(f"{model}, {clients} client{'s' * (clients > 1)}, {mode}, beside bare", f"≥ {limit}", measured, limit, "", True)
    tiny = {"model": "tiny", "clients": 8, "server": "confonnx"}
    for mode, limit in (("sealed", 1.5), ("sealed, resumed", 2.5)):
        measured = value("ratio_to_fastest_peer", **tiny, mode=mode)
        row(f"tiny, 8 clients, {mode}, beside the fastest peer", f"≥ {limit}", measured, limit, "", True)
    for model, mode, limit in (
        ("tiny", "sealed", 0.75),
        ("tiny", "sealed, resumed", 0.35),
        ("squeezenet", "sealed", 1.0),
        ("squeezenet", "sealed, resumed", 1.0),
        ("minilm", "sealed", 1.0),
        ("minilm", "sealed, resumed", 1.0),
        ("minilm", "sealed, resumed, a thread each", 1.0),
    ):
        measured = value("cpu_ratio", model=model, clients=8, server="confonnx", mode=mode)
        row(f"CPU of the server, {model}, 8 clients, {mode}, of the fastest peer's", f"≤ {limit}", measured, limit, "", False)
    bare = value("p50_us", model="tiny", clients=1, server="bare")
    for mode, limit in (("sealed", 200), ("sealed, X25519", 150)):
        measured = value("p50_us", model="tiny", clients=1, server="confonnx", mode=mode)
        added = None if measured is None or bare is None else measured - bare
        row(f"p50 added to bare, tiny, 1 client, {mode}", f"≤ {limit} µs", added, limit, " µs", False)
    ours = value("p50_us", model="tiny", clients=1, server="confonnx", mode="sealed")
    theirs = value("p50_us", model="tiny", clients=1, server="FastAPI", mode="raw bytes")
    if theirs is not None:
        row("p50, tiny, 1 client, sealed", f"≤ FastAPI raw ({number(theirs)} µs)", ours, theirs, " µs", False)
    for finding in found.resources:
        if finding["target"]:
            cells.append([finding["what"], finding["target"], finding["measured"], "met" if finding["met"] else "missed"])
    return table("what | target | measured | ", [[cell.replace("|", "/") for cell in line] for line in cells])


def threads(found: Results) -> str:
    """How sessions share the cores: one line for each setting."""
    said = [finding for finding in found.resources if finding["what"] == THREADS]
    if not said:
        return "Not measured."
    model, _, settings = said[0]["measured"].partition(": ")
    cells = [list(re.fullmatch(r"(.*) (\S+) and (\S+)", setting).groups()) for setting in settings.split("; ")]
    return table(f"{model}, sealed, answers/s | to 1 client | to 8 clients", cells)


def breakdown(found: Results) -> str:
    return f"```text\n{found.run['breakdown'].rstrip()}\n```"


def generator(found: Results) -> str:
    cells = []
    for model in found.models:
        clients = found.most_clients(model)
        echo = found.one(model=model, clients=clients, server="echo")
        if echo is None:
            continue
        cells.append([model, f"plaintext, {number(echo['requests_per_s'])} requests/s", number(echo["client_cpu_us"])])
        for row in found.select(model=model, clients=clients, server="confonnx"):
            cells.append([model, f"confonnx, {row['mode']}", number(row["client_cpu_us"])])
    return table("model | load | CPU µs a request", cells)


def plans(found: Results, assumed: scaling.Assumed, load: float) -> str:
    cells = []
    for model in found.models:
        clients = found.most_clients(model)
        beside = found.one(model=model, clients=clients, server="Triton", mode="binary")
        rows = [row for row in found.select(model=model, clients=clients, server="confonnx") if "library" not in row["mode"]]
        for row in [*rows, *([beside] if beside else [])]:
            sealed = row is not beside
            kem = sealed and "resumed" not in row["mode"]
            it = scaling.plan(load, row["server_cpu_us"], sum(found.run["bytes"][model]), kem, assumed)
            cells.append(
                [
                    model,
                    row["mode"] if sealed else "Triton, plaintext",
                    number(it.cpu_us),
                    f"{it.replicas:,}",
                    f"{it.dollars_per_million:.4f}",
                    f"{row['server_cpu_us'] / beside['server_cpu_us']:.2f}" if sealed and beside else "–",
                    f"{it.network_gbits:.3f}",
                    f"{it.replay_fills:.2f}" if sealed else "–",
                    it.first,
                ]
            )
    head = "model | mode | CPU µs a request | replicas | $ a million | of Triton's | Gbit/s a replica | replay table in use | gives out first"
    return (
        f"For {load:,.0f} requests a second, on replicas of {assumed.vcpus} vCPUs and {assumed.network_gbits:g} Gbit/s, planned to "
        f"{assumed.utilisation:.0%} of their CPU, at ${assumed.price:g} a vCPU-hour (an input: `bench/page.py --price`):\n\n"
        + table(head, cells)
    )


def memory(found: Results) -> str:
    numbers = found.numbers()
    lines = []
    if "bytes_a_connection" in numbers:
        each = numbers["bytes_a_connection"]
        lines.append(f"- an idle connection: {each:,.0f} bytes, so {each * 1e6 / 2**30:.1f} GiB for 10⁶ over all replicas;")
    if "bytes_a_resumption" in numbers:
        each = numbers["bytes_a_resumption"]
        lines.append(
            f"- a resumption: {each:,.0f} bytes, so {each * 1e6 / 2**20:,.0f} MiB for 10⁶ over all replicas; a replica holds "
            f"{scaling.MAX_RESUMPTIONS:,} by default (`--max-resumptions`), and a client whose resumption is gone sends a full request;"
        )
    if "bytes_a_request" in numbers:
        each = numbers["bytes_a_request"]
        full = each * scaling.REPLAY_CAPACITY / 2**20
        rate = scaling.REPLAY_CAPACITY / scaling.WINDOW_S
        lines.append(
            f"- a request in the replay table: {each:,.0f} bytes for {scaling.WINDOW_S} s; the default table of "
            f"{scaling.REPLAY_CAPACITY:,} is full, and refuses, at {rate:,.0f} requests a second for that long, and then takes "
            f"{full:,.0f} MiB. `--replay-capacity` raises it."
        )
    return "\n".join(lines)


def herds(found: Results, clients: int) -> str:
    document_s = found.numbers().get("document_cpu_us", 200.0) / 1e6
    cells = []
    for what, replicas, between in (
        ("rollover, a request each 10 s", 10, 10.0),
        ("rollover, a request each 10 s", 50, 10.0),
        ("rollover, a request each 60 s", 10, 60.0),
        ("all in the same instant", 10, 0.0),
        ("all in the same instant", 50, 0.0),
        ("rollover, a request each 10 s", 1_000, 10.0),
        ("all in the same instant", 1_000, 0.0),
    ):
        herd = scaling.Herd(clients, replicas, between, document_s=document_s)
        it = scaling.simulate(herd)
        per_second = it.quotes / replicas / max(it.over_s, herd.quote_s)
        cells.append(
            [what, str(replicas), f"{it.quotes:,}", f"{per_second:.1f}", f"{it.p50_s:.2f}", f"{it.p99_s:.2f}", f"{it.longest_s:.2f}"]
        )
    head = "what | replicas | quotes | a second and replica | p50 s | p99 s | longest s"
    return (
        f"{clients:,} clients that all have to attest; a quote takes 0.1 s, at most twelve a second; a document takes "
        f"{document_s * 1e6:,.0f} µs of one CPU (measured):\n\n" + table(head, cells)
    )


def costs(found: Results) -> str:
    """The table of the first page: each model at its most clients, sealed and beside the fastest plaintext server."""
    cells = []
    for model in found.models:
        clients = found.most_clients(model)
        rows = found.select(model=model, clients=clients)
        bare = found.one(model=model, clients=clients, server="bare")
        peers = [row for row in rows if row["server"] not in ("bare", "echo", "confonnx")]
        fastest = max(peers, key=lambda row: row["requests_per_s"], default=None)
        cell = [model, f"{sum(found.run['bytes'][model]) / 1000:,.0f} KB", "–" if bare is None else number(bare["requests_per_s"])]
        for mode in ("sealed", "sealed, resumed"):
            row = found.one(model=model, clients=clients, server="confonnx", mode=mode)
            beside = "" if row is None or row["ratio_to_bare"] is None else f" ({row['ratio_to_bare']:.2f} of bare)"
            cell.append("–" if row is None else number(row["requests_per_s"]) + beside)
        cell.append("–" if fastest is None else f"{number(fastest['requests_per_s'])} ({fastest['server']}, {fastest['mode']})")
        cells.append(cell)
    head = "model | in and out | bare | sealed, a key encapsulation each | sealed, resumed | fastest other server, plaintext"
    return table(head, cells)


def blocks(found: Results, assumed: scaling.Assumed, load: float) -> dict[str, dict[str, str]]:
    """The text of each block of each page, but for the blocks that are simulated."""
    return {
        "performance.md": {
            "machine": machine(found),
            "throughput": throughput(found),
            "latency": latency(found),
            "open loop": open_loop(found),
            "targets": targets(found),
            "threads": threads(found),
            "breakdown": breakdown(found),
            "generator": generator(found),
        },
        "../../README.md": {"costs": costs(found)},
        "scaling.md": {"plans": plans(found, assumed, load), "memory": memory(found)},
        "proxy.md": proxied.blocks(found.proxy),
    }


def fill(page: str, blocks: dict[str, str]) -> str:
    """`page` with each block's content replaced."""
    for name, text in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page, count = re.subn(pattern, lambda match, text=text: f"{match[1]}{text}\n{match[2]}", page, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"expected one block `{name}`, found {count}")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, help="what the bench wrote: target/bench")
    parser.add_argument("--price", type=float, default=scaling.Assumed.price, help="US dollars for a vCPU-hour")
    parser.add_argument("--load", type=float, default=LOAD, help="requests a second to plan for")
    parser.add_argument("--clients", type=int, default=1_000_000, help="clients to simulate")
    given = parser.parse_args()
    if given.folder:
        DATA.mkdir(exist_ok=True)
        there = [name for name in (*FILES, PROXY) if (given.folder / name).exists()]
        if not there:
            raise SystemExit(f"{given.folder} has no results; run `make bench bench-resources bench-proxy`")
        for name in there:
            shutil.copyfile(given.folder / name, DATA / name)
    found = Results(DATA)
    pages = blocks(found, scaling.Assumed(price=given.price), given.load)
    pages["scaling.md"]["herds"] = herds(found, given.clients)
    for name, texts in pages.items():
        page = DOCS / name
        page.write_text(fill(page.read_text(), texts))
        print(page)
    picture = DATA / "throughput.svg"
    picture.write_text(plot.throughput(found))
    print(picture)


if __name__ == "__main__":
    main()

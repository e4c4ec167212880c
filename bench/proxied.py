"""The blocks of docs/measurements/proxy.md, from what `confonnx-bench proxy` found (data/proxy.json)."""

import textwrap

GOALS = {("tiny", 1): ("added_us", 150), ("squeezenet", 8): ("of_direct", 0.95)}
THROUGH = "through the proxy"


def blocks(found: dict) -> dict[str, str]:
    return {"machine": machine(found), "time": time(found), "goals": goals(found), "memory": memory(found["memory"])}


def machine(found: dict) -> str:
    it = found["machine"]
    text = (
        f"{it['cpu']}, {it['cores']} cores, Linux {it['linux']}, load average {it['load_before']:g} before the run. confonnx "
        f"{it['confonnx']}, ONNX Runtime {it['onnxruntime']}, no TEE (`--debug`); client, proxy and server share the machine. "
        f"{found['rounds']} rounds of {found['seconds']:g} s each, in turns; medians, with the least and the most."
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def time(found: dict) -> str:
    text = []
    for load in found["loads"]:
        lines = ["| way | requests/s | of direct | p50 µs | beside direct | p99 µs |", "| --- | --: | --: | --: | --: | --: |"]
        for row in load["rows"]:
            each = {name: spread["median"] for name, spread in row.items() if name != "way"}
            part = f"{each['of_direct']:.2f} ({row['of_direct']['min']:.2f}–{row['of_direct']['max']:.2f})"
            added = f"{each['added_us']:+,.0f} ({row['added_us']['min']:+,.0f} to {row['added_us']['max']:+,.0f})"
            if row["way"] == "direct":
                part = added = "–"
            cells = [row["way"], f"{each['requests_per_s']:,.0f}", part, f"{each['p50_us']:,.0f}", added, f"{each['p99_us']:,.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        text.append(f"**{load['model']}**, {clients(load['clients'])}\n\n" + "\n".join(lines))
        text += [
            f"Absent: {one['server']} ({one['reason'].splitlines()[0]})." for one in found["absent"] if one["model"] == load["model"]
        ]
    return "\n\n".join(text)


def goals(found: dict) -> str:
    lines = ["| what | goal | measured | |", "| --- | --- | --: | --- |"]
    for load in found["loads"]:
        name, limit = GOALS[load["model"], load["clients"]]
        [measured] = [row[name]["median"] for row in load["rows"] if row["way"] == THROUGH]
        what = f"{load['model']}, {clients(load['clients'])}"
        if name == "added_us":
            met = "met" if measured <= limit else f"missed by {measured - limit:,.0f} µs"
            lines.append(f"| {what}: p50 added | ≤ {limit} µs | {measured:,.0f} µs | {met} |")
        else:
            met = "met" if measured >= limit else f"missed by {limit - measured:.2f}"
            lines.append(f"| {what}: requests a second, of direct | ≥ {limit} | {measured:.2f} | {met} |")
    return "\n".join(lines)


def memory(it: dict) -> str:
    return (
        f"- {it['after_warm'] / 1024:,.0f} KiB after {it['warm_requests']:,} requests of tiny, {it['after'] / 1024:,.0f} KiB after "
        f"{it['requests']:,} more;\n"
        f"- {it['idle_connections']:,} idle connections: {it['each_connection'] / 1024:.1f} KiB each; p50 of one client beside them "
        f"{it['p50_us']:,.0f} µs."
    )


def clients(number: int) -> str:
    return f"{number} client" + "s" * (number > 1)

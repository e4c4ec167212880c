"""What happens to many replicas at once, simulated: how they join their group, and what becomes of resumptions behind a balancer.

    .venv/bin/python bench/fleet.py        # writes its part of docs/measurements/scaling.md anew

Seeded, so that the page is the same each time. Rules are the code's (crates/confonnx-server/src/group.rs, …/group/member.rs,
crates/confonnx-client/src/conversation/resuming.rs); costs are measured where a page has them, else said."""

from __future__ import annotations

import collections
import heapq
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "measurements" / "scaling.md"
RESULTS = ROOT / "docs" / "measurements" / "data" / "results.json"
MAX_CHALLENGES = 256
MAX_REFUSED, REMEMBERED, PAUSE_S, LIFETIME_S = 3, 8, 60.0, 600.0


@dataclass
class Join:
    """A group that starts from nothing, with all replicas at once."""

    replicas: int
    retry_s: float = 5.0
    """The setting `--key-error-retry-interval`; the chart's is 5."""
    same_order: bool = False
    """Whether all replicas ask peers in one order (a list, a file), or each in its own (DNS that rotates)."""
    quote_s: float = 0.1
    verify_s: float = 0.003
    """CPU time to verify a document: assumed."""
    ask_s: float = 0.002
    """Time that it costs to ask a peer which has no keys yet."""
    seed: int = 1


@dataclass
class Joined:
    all_s: float
    """Seconds until the last replica had the secret."""
    most_joins: int
    """The most members that one member let in."""
    most_open: int
    """The most challenges that were open at one member."""
    evicted: int
    """How many challenges were pushed out, so that the joiner had to begin again."""


def join(given: Join) -> Joined:
    rng = random.Random(given.seed)
    count = given.replicas
    since: dict[int, float] = {}
    # Of each replica: when the last quote that it began, or will begin, begins; and until when its CPU is busy.
    device, cpu = [-1.0] * count, [0.0] * count
    waiting: list[collections.OrderedDict[int, None]] = [collections.OrderedDict() for _ in range(count)]
    lets_in = collections.Counter[int]()
    evicted, most_open = 0, 0
    # Events: time, a number that keeps their order, what happens, to whom, further numbers.
    events: list[tuple[float, int, str, int, tuple[int, ...]]] = []
    number = 0

    def later(at: float, what: str, who: int, *further: int) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (at, number, what, who, further))

    orders = []
    for who in range(count):
        order = list(range(count))
        if not given.same_order:
            rng.shuffle(order)
        orders.append(order)
        later(rng.uniform(0, 1), "ask", who, 0)

    def quote(of: int, at: float) -> float:
        """When the quote is there that covers a nonce of that time: one is made at a time, for all that wait."""
        if at > device[of] + given.quote_s:
            device[of] = at
        elif at > device[of]:
            device[of] += given.quote_s
        return device[of] + given.quote_s

    while events:
        at, _, what, who, further = heapq.heappop(events)
        if what == "ask":
            [place] = further
            while place < count and since.get(orders[who][place], at + 1) > at:
                at, place = at + given.ask_s, place + 1
                # Other replicas may join while this one asks.
                if place < count and place % 16 == 0:
                    later(at, "ask", who, place)
                    break
            else:
                if place < count:
                    later(quote(orders[who][place], at) + given.verify_s, "challenge", who, orders[who][place])
                elif who == 0:
                    since[who] = at
                else:
                    later(at + given.retry_s, "ask", who, 0)
        elif what == "challenge":
            [member] = further
            waiting[member][who] = None
            if len(waiting[member]) > MAX_CHALLENGES:
                waiting[member].popitem(last=False)
                evicted += 1
            most_open = max(most_open, len(waiting[member]))
            later(quote(who, at), "prove", who, member)
        elif what == "prove":
            [member] = further
            if who not in waiting[member]:
                later(at + given.retry_s, "ask", who, 0)
                continue
            del waiting[member][who]
            cpu[member] = max(cpu[member], at) + given.verify_s
            since[who] = cpu[member]
            lets_in[member] += 1
    return Joined(max(since.values()), max(lets_in.values(), default=0), most_open, evicted)


@dataclass
class Resuming:
    """Clients that resume, behind a balancer that knows nothing of resumptions (`sticky` 0) or keeps most calls at one
    replica."""

    replicas: int
    between_s: float
    sticky: float = 0.0
    clients: int = 300
    seconds: float = 1800.0
    seed: int = 1


@dataclass
class Used:
    resumed: float
    """The part of the calls that a resumption answered."""
    twice: float
    """The part of the calls that were sent twice: by a resumption that the replica does not know, then in full."""


def resuming(given: Resuming) -> Used:
    rng = random.Random(given.seed)
    calls = resumed = twice = 0
    for _ in range(given.clients):
        home = rng.randrange(given.replicas)
        held: tuple[int, float] | None = None
        refused: collections.deque[bool] = collections.deque(maxlen=REMEMBERED)
        paused, at, answered = 0.0, rng.expovariate(1 / given.between_s), False
        while at < given.seconds:
            calls += 1
            there = home if rng.random() < given.sticky else rng.randrange(given.replicas)
            if held and at < held[1] and held[0] == there:
                resumed += 1
                refused.append(False)
            else:
                if held and at < held[1]:
                    twice += 1
                    refused.append(True)
                    if sum(refused) >= MAX_REFUSED:
                        refused.clear()
                        paused = at + PAUSE_S
                # The call is sent in full, and offers a resumption from the second answer on.
                held = (there, at + LIFETIME_S - 1) if answered and at >= paused else None
                answered = True
            at += rng.expovariate(1 / given.between_s)
    return Used(resumed / calls, twice / calls)


def costs() -> tuple[float, float]:
    """CPU time that a request of the smallest model takes of the server, in µs: sealed with a key, and resumed."""
    rows = json.loads(RESULTS.read_text())
    of = {row["mode"]: row["server_cpu_us"] for row in rows if row["model"] == "tiny" and row["server"] == "confonnx" and row["clients"] == 8}
    return of["sealed"], of["sealed, resumed"]


def text() -> str:
    sealed, quick = costs()
    lines = ["All replicas start at once, and one of them may make the secret; a quote takes 0.1 s, a document 3 ms to verify (assumed):", ""]
    lines += ["| replicas | peers are asked | tries again after s | all joined after s | most let in by one | challenges open at one | pushed out |"]
    lines += ["| --: | --- | --: | --: | --: | --: | --: |"]
    for count in (10, 100, 1000):
        for same, retry in ((False, 5.0), (True, 5.0), (False, 300.0)):
            found = join(Join(count, retry, same))
            order = "all in one order" if same else "each in its own order"
            lines.append(
                f"| {count:,} | {order} | {retry:.0f} | {found.all_s:.1f} | {found.most_joins} | {found.most_open} | {found.evicted} |"
            )
    lines += ["", "Resumptions of clients behind a balancer, half an hour of it; the costs are those of the smallest model, where they matter most:", ""]
    lines += ["| replicas | a call each s | at the same replica | resumed | sent twice | CPU µs a call |", "| --: | --: | --: | --: | --: | --: |"]
    for count in (1, 3, 30, 1000):
        for between in (0.1, 10.0):
            for sticky in (0.0, 0.99) if count > 1 else (0.0,):
                used = resuming(Resuming(count, between, sticky, clients=40 if between < 1 else 300))
                cpu = used.resumed * quick + (1 - used.resumed) * sealed + used.twice * quick
                kept = "by chance" if not sticky else f"{sticky:.0%}"
                lines.append(f"| {count:,} | {between:g} | {kept} | {used.resumed:.0%} | {used.twice:.1%} | {cpu:.0f} |")
    return "\n".join(lines)


def replaced(page: str, made: str) -> str:
    found, count = re.subn(r"<!-- fleet -->\n.*?<!-- end -->", lambda _: f"<!-- fleet -->\n{made}\n<!-- end -->", page, flags=re.S)
    assert count == 1
    return found


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(), text()))

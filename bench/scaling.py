"""How many replicas, what it costs, what gives out first: computed from what `make bench` measured.

Nothing here is measured. `plan` is arithmetic on the results; `Herd` simulates clients that have to attest.
"""

import collections
import dataclasses
import math
import random

WINDOW_S = 600
"""How long the server remembers an encapsulated key (docs/protocol.md: twice the window of `date`)."""
REPLAY_CAPACITY = 16_777_216
"""The default of --replay-capacity."""
MAX_RESUMPTIONS = 65_536
"""The default of --max-resumptions."""


@dataclasses.dataclass(frozen=True)
class Assumed:
    """What nobody measured here. bench/page.py takes the price as an argument."""

    price: float = 0.05
    """US dollars for a vCPU-hour: about what large clouds ask for general-purpose machines on demand."""
    utilisation: float = 0.6
    """The part of a replica's CPU that is planned for use."""
    vcpus: int = 4
    """Virtual CPUs of a replica."""
    network_gbits: float = 10.0
    """Network of a replica."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one model needs at one load."""

    requests_per_s: float
    cpu_us: float
    replicas: int
    dollars_per_million: float
    network_gbits: float
    """Network of each replica, both ways together."""
    replay_fills: float
    """The part of a replica's default replay table that is in use; above 1 it refuses requests."""
    first: str
    """What gives out first when the load grows."""


def plan(requests_per_s: float, cpu_us: float, bytes: float, kem_per_request: bool, assumed: Assumed) -> Plan:
    """`cpu_us`: CPU time that a request takes of the server; `bytes`: what it takes on the wire, both ways."""
    vcpus = requests_per_s * cpu_us / 1e6
    replicas = max(1, math.ceil(vcpus / (assumed.vcpus * assumed.utilisation)))
    share = requests_per_s / replicas
    limits = {
        "CPU": vcpus / replicas / assumed.vcpus,
        "network": share * bytes * 8 / 1e9 / assumed.network_gbits,
        "replay table": share * WINDOW_S / REPLAY_CAPACITY if kem_per_request else 0.0,
    }
    return Plan(
        requests_per_s=requests_per_s,
        cpu_us=cpu_us,
        replicas=replicas,
        dollars_per_million=cpu_us / assumed.utilisation / 3600 * assumed.price,
        network_gbits=share * bytes * 8 / 1e9,
        replay_fills=limits["replay table"],
        first=max(limits, key=lambda name: limits[name]),
    )


@dataclasses.dataclass(frozen=True)
class Herd:
    """Clients that all have to attest, and the replicas that answer them.

    A client attests with its next request; requests of a client are a Poisson process. A replica has one device that
    makes one quote at a time, no sooner than `rest_s` after it began the last, for all nonces that arrived before. Their
    documents then wait for a CPU that makes one in `document_s`.
    """

    clients: int
    replicas: int
    between_requests_s: float
    """Mean time between two requests of a client; 0 if all come in the same instant."""
    quote_s: float = 0.1
    rest_s: float = 1 / 12
    """The device's rest, so that at most twelve quotes begin in a second."""
    document_s: float = 0.0002
    """CPU time for a document, divided among the replica's CPUs."""
    seed: int = 1


@dataclasses.dataclass(frozen=True)
class Found:
    quotes: int
    busiest_second: int
    """The most quotes that one replica began in a second."""
    p50_s: float
    p99_s: float
    longest_s: float
    over_s: float
    """Seconds until the last client was answered."""


def simulate(herd: Herd) -> Found:
    rng = random.Random(herd.seed)
    shares: list[list[float]] = [[] for _ in range(herd.replicas)]
    for _ in range(herd.clients):
        at = rng.expovariate(1 / herd.between_requests_s) if herd.between_requests_s else 0.0
        shares[rng.randrange(herd.replicas)].append(at)
    waits: list[float] = []
    quotes, busiest, over = 0, 0, 0.0
    for arrivals in shares:
        begun = replica(sorted(arrivals), herd, waits)
        quotes += len(begun)
        busiest = max(busiest, busiest_second(begun))
    for arrivals in shares:
        over = max(over, max(arrivals, default=0.0))
    waits.sort()
    p50, p99 = (waits[max(0, math.ceil(len(waits) * part) - 1)] for part in (0.5, 0.99))
    return Found(quotes, busiest, p50, p99, waits[-1], over)


def replica(arrivals: list[float], herd: Herd, waits: list[float]) -> list[float]:
    """Appends to `waits` how long each arrival waited; returns when quotes began."""
    begun: list[float] = []
    at, device_free, cpu_free = 0, 0.0, 0.0
    while at < len(arrivals):
        begin = max(arrivals[at], device_free)
        end = begin + herd.quote_s
        begun.append(begin)
        device_free = max(end, begin + herd.rest_s)
        while at < len(arrivals) and arrivals[at] <= begin:
            cpu_free = max(cpu_free, end) + herd.document_s
            waits.append(cpu_free - arrivals[at])
            at += 1
    return begun


def busiest_second(times: list[float]) -> int:
    window: collections.deque[float] = collections.deque()
    most = 0
    for time in times:
        window.append(time)
        while window[0] <= time - 1:
            window.popleft()
        most = max(most, len(window))
    return most

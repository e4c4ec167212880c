"""The arithmetic and the simulation behind docs/measurements/scaling.md."""

import re
from pathlib import Path

import pytest

from scaling import REPLAY_CAPACITY, Assumed, Herd, plan, simulate

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_replay_table_is_the_one_that_servers_have_by_default():
    settings = (DOCS / "reference/settings.md").read_text("utf-8")
    [default] = re.findall(r"`--replay-capacity N`.*\[default: (\d+)]", settings)
    assert int(default) == REPLAY_CAPACITY
    assert f"the default table of {REPLAY_CAPACITY:,} " in (DOCS / "measurements/scaling.md").read_text("utf-8")


def test_replicas_and_cost_follow_from_cpu_time():
    assumed = Assumed(price=0.06, utilisation=0.5, vcpus=4, network_gbits=10)
    found = plan(1e5, 100, 1_000, kem_per_request=False, assumed=assumed)
    # The load is 10 CPUs of work, and 2 CPUs of each replica are planned for use.
    assert found.replicas == 5
    assert found.first == "CPU"
    # A million requests take 100 s of CPU time, so 200 s are paid for.
    assert found.dollars_per_million == pytest.approx(200 / 3600 * 0.06)
    assert found.network_gbits == pytest.approx(2e4 * 8_000 / 1e9)


def test_the_replay_table_gives_out_before_a_fast_cpu():
    found = plan(1e5, 20, 1_000, kem_per_request=True, assumed=Assumed())
    assert found.first == "replay table"
    assert found.replay_fills > 1


def test_large_inputs_saturate_the_network():
    assert plan(1e5, 50, 600_000, kem_per_request=False, assumed=Assumed()).first == "network"


def test_one_quote_serves_all_that_wait():
    found = simulate(Herd(clients=1_000, replicas=1, between_requests_s=0, document_s=0))
    assert found.quotes == 1
    assert found.longest_s == pytest.approx(0.1)


def test_no_device_is_asked_more_than_twelve_times_a_second():
    found = simulate(Herd(clients=20_000, replicas=3, between_requests_s=5, quote_s=0.01))
    assert found.busiest_second <= 13  # a second begins and ends with a quote
    assert found.quotes < 3 * 12 * (found.over_s + 1)


def test_nobody_waits_longer_than_two_quotes_while_the_cpu_keeps_up():
    found = simulate(Herd(clients=10_000, replicas=4, between_requests_s=10, document_s=0.0001))
    assert 0.1 <= found.p50_s <= found.p99_s <= 0.21
    assert simulate(Herd(clients=1_000, replicas=4, between_requests_s=10)) == simulate(
        Herd(clients=1_000, replicas=4, between_requests_s=10)
    )


def test_a_herd_in_one_instant_waits_for_the_cpu():
    found = simulate(Herd(clients=10_000, replicas=1, between_requests_s=0, document_s=0.001))
    assert found.longest_s == pytest.approx(10.1, rel=0.01)

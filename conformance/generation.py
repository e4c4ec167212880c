"""What `make conformance-generation` does: a real language model behind the seal, and whether its words are those of others.

    python conformance/generation.py --bits 32                 # after examples/chat/build.py --bits 32 --out .cache/chat32
    python conformance/generation.py --bits 8 --prompts 10

Fifty chats are answered greedily through `confonnx proxy` by the unmodified `openai` client: one at a time, then eight at once.
Each is compared with bare ONNX Runtime's own loop over the same file (tokens, and the logarithms of probabilities that
it gives), with tokens and template by `tokenizers` and Jinja, with onnxruntime-genai, and in 32 bits with llama.cpp, which has
the same weights in a file of its own and shares no code with any of these. Fails if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import jinja2
import numpy as np
import onnx
import onnxruntime
import onnxruntime_genai
import openai
from llama import Llama, make_gguf
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
THREADS = len(os.sched_getaffinity(0))
START_SECONDS = 120
TOLD = 3

SUBJECTS = ["the sea", "a bicycle", "the moon", "bread", "a violin", "the year 1900", "Köln", "rain 🌧", "x² + 1", "an old map"]
ASKED = ["What is {}?", "Write one line about {}.", "Why do people like {}?", "Translate into French: {}", "Name three things like {}."]
CHATS = [form.format(subject) for subject in SUBJECTS for form in ASKED]


class Bare:
    """Bare ONNX Runtime in a loop of this program's."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        # The server sets the same.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.past = {i.name: i.shape for i in self.session.get_inputs() if i.name.startswith("past_key_values")}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        self.template = environment.from_string((folder / "chat_template.jinja").read_text())
        self.ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]

    def tokens(self, text: str) -> list[int]:
        said = self.template.render(messages=[{"role": "user", "content": text}], add_generation_prompt=True)
        return self.tokenizer.encode(said, add_special_tokens=False).ids

    def answer(self, tokens: list[int], most: int) -> tuple[list[int], list[list[float]]]:
        """Tokens drawn greedily, and for each the logarithms of the most likely ones."""
        cache = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in self.past.items()}
        feed, total, answer, told = tokens, len(tokens), [], []
        while len(answer) < most:
            given = cache | {"input_ids": np.array([feed]), "attention_mask": np.ones((1, total), np.int64)}
            found = dict(zip(self.outputs, self.session.run(self.outputs, given | {"num_logits_to_keep": np.array(1)})))
            logits = found["logits"][0, -1].astype(np.float64)
            cache = {name: found[name.replace("past_key_values", "present")] for name in cache}
            best = int(logits.argmax())
            shifted = logits - logits.max()
            told.append(sorted((shifted - np.log(np.exp(shifted).sum())).tolist(), reverse=True)[:TOLD])
            answer.append(best)
            if best in self.ends:
                break
            feed, total = [best], total + 1
        return answer, told

    def text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode([token for token in tokens if token not in self.ends])


def genai_files(folder: Path, scratch: Path, longest: int = 2048) -> None:
    """What onnxruntime-genai needs, into `scratch`: the same file but for the one input that it does not know."""
    model = onnx.load(folder / "model.onnx")
    kept = [i for i in model.graph.input if i.name != "num_logits_to_keep"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int64), "num_logits_to_keep"))
    onnx.save(model, scratch / "model.onnx")
    config = json.loads((folder / "config.json").read_text())
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    session = {"log_id": "genai", "provider_options": [], "intra_op_num_threads": THREADS}
    decoder = {
        "session_options": session, "filename": "model.onnx", "head_size": config["head_dim"],
        "hidden_size": config["hidden_size"], "num_attention_heads": config["num_attention_heads"],
        "num_hidden_layers": config["num_hidden_layers"], "num_key_value_heads": config["num_key_value_heads"],
        "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask",
                   "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
        "outputs": {"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
    }  # fmt: skip
    common = {"type": "llama", "context_length": config["max_position_embeddings"], "vocab_size": config["vocab_size"],
              "bos_token_id": 1, "eos_token_id": ends, "pad_token_id": ends[-1], "decoder": decoder}  # fmt: skip
    search = {"do_sample": False, "max_length": longest, "past_present_share_buffer": True, "top_k": 1}
    (scratch / "genai_config.json").write_text(json.dumps({"model": common, "search": search}))


class Genai:
    """onnxruntime-genai in this process, of a folder that `genai_files` made."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "genai_config.json").read_text())
        self.model = onnxruntime_genai.Model(str(folder))
        self.longest, self.ends = config["search"]["max_length"], config["model"]["eos_token_id"]

    def generator(self, most: int) -> onnxruntime_genai.Generator:
        params = onnxruntime_genai.GeneratorParams(self.model)
        params.set_search_options(do_sample=False, max_length=most)
        return onnxruntime_genai.Generator(self.model, params)

    def answer(self, tokens: list[int], most: int) -> list[int]:
        generator = self.generator(len(tokens) + most)
        generator.append_tokens(tokens)
        answer: list[int] = []
        while len(answer) < most and not generator.is_done():
            generator.generate_next_token()
            answer.append(int(generator.get_next_tokens()[0]))
        return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def served(folder: Path, programs: Path, scratch: Path, repository: bool = False) -> Iterator[str]:
    """Starts a server with the model of a folder, or all that are in it, and a proxy before it; yields the proxy's address."""
    port = free_port()
    log = scratch / "log"
    one: list[str | Path] = ["--model-path", folder / "model.onnx", "--model-name", "chat"]
    command: list[str | Path] = [programs / "confonnx-server", *(["--model-repository", folder] if repository else one)]
    command += ["--address", "127.0.0.1", "--http-port", str(port), "--admin-port", "0", "--debug"]
    if library := next((ROOT / ".cache" / "onnxruntime").glob("libonnxruntime.so.*"), None):
        command += ["--onnxruntime-library", library]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            wait(lambda: urllib.request.urlopen(url, timeout=5).read() == b"Healthy", server, log)
            here = scratch / "proxy"
            command = [programs / "confonnx", "proxy", "--url", url, "--enclave-allow-debug", "--listen", "127.0.0.1:0", "--timeout", "600"]
            with here.open("wb") as told, subprocess.Popen(command, stderr=told) as proxy:
                try:
                    where = re.compile(r"proxy on (http://[0-9.:]+)")
                    wait(lambda: where.search(here.read_text()) is not None, proxy, here)
                    found = where.search(here.read_text())
                    assert found
                    yield found[1]
                finally:
                    proxy.terminate()
        finally:
            server.terminate()


def wait(what, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"it stopped with status {process.returncode}:\n{log.read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            if what():
                return
        time.sleep(0.05)
    sys.exit(f"it was not there within {START_SECONDS} s:\n{log.read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, choices=[8, 32], default=32)
    parser.add_argument("--prompts", type=int, default=len(CHATS))
    parser.add_argument("--skip", type=int, default=0, help="prompts before those that are asked")
    parser.add_argument("--tokens", type=int, default=24)
    default = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("--programs", type=Path, default=default, help="where confonnx-server and confonnx are")
    args = parser.parse_args()
    folder = ROOT / ".cache" / ("chat32" if args.bits == 32 else "chat")
    chats = CHATS[args.skip :][: args.prompts]
    bare = Bare(folder)
    tokens = [bare.tokens(chat) for chat in chats]
    looped = [bare.answer(each, args.tokens) for each in tokens]
    wrong = []

    def same(what: str, found: list, expected: list) -> None:
        differ = [chat for chat, one, other in zip(chats, found, expected) if one != other]
        print(f"{what:60} {len(chats) - len(differ)} of {len(chats)}", flush=True)
        wrong.extend(f"{what}: {chat}" for chat in differ)

    with tempfile.TemporaryDirectory() as scratch, served(folder, args.programs, Path(scratch)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)

        def ask(chat: str) -> tuple[str, int, int, list[list[float]]]:
            answer = client.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": chat}], temperature=0, max_tokens=args.tokens,
                logprobs=True, top_logprobs=TOLD,
            )  # fmt: skip
            choice, usage = answer.choices[0], answer.usage
            assert usage and choice.logprobs and choice.logprobs.content
            told = [[top.logprob for top in token.top_logprobs] for token in choice.logprobs.content]
            return choice.message.content or "", usage.prompt_tokens, usage.completion_tokens, told

        alone = [ask(chat) for chat in chats]
        with ThreadPoolExecutor(8) as callers:
            together = list(callers.map(ask, chats))
    same("tokens of the prompt: tokenizers and Jinja", [a[1] for a in alone], [len(each) for each in tokens])
    same("text: bare ONNX Runtime's own loop", [a[0] for a in alone], [bare.text(answer) for answer, _ in looped])
    same("tokens of the answer: the same", [a[2] for a in alone], [len(answer) for answer, _ in looped])

    def near(whose: str, others: list[list[list[float]]], most: float) -> None:
        each = zip((a[3] for a in alone), others)
        apart = max(abs(x - y) for ours, theirs in each for one, other in zip(ours, theirs) for x, y in zip(one, other))
        print(f"{f'logarithms of probabilities: largest difference to {whose}':60} {apart:.2g}", flush=True)
        if apart > most:
            wrong.append(f"probabilities: {whose}")

    near("its loop", [told for _, told in looped], 2e-6)
    same("eight callers at once: the same text and probabilities", together, alone)
    with tempfile.TemporaryDirectory() as scratch:
        genai_files(folder, Path(scratch))
        genai = Genai(Path(scratch))
        others = [genai.answer(each, args.tokens) for each in tokens]
        cut = [[token for token in answer if token not in bare.ends] for answer, _ in looped]
        same("tokens: onnxruntime-genai", [[t for t in o if t not in bare.ends] for o in others], cut)
        del genai
    if args.bits == 32:
        llama = Llama(make_gguf(folder / "model.gguf", 32), exact=True)
        answers = [llama.answer(each, args.tokens, TOLD) for each in tokens]
        same("tokens: llama.cpp", [[t for t in o if t not in bare.ends] for o, _ in answers], cut)
        near("llama.cpp", [told for _, told in answers], 5e-4)
    if wrong:
        sys.exit("\n".join(["generation: these differ:", *wrong]))


if __name__ == "__main__":
    main()

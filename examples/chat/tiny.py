"""Writes the decoders that tests use: a few thousand random weights, a tokenizer of bytes, and a template.

    python examples/chat/tiny.py crates/confonnx-engine/tests/data

What they say means nothing, but they say it as large models do, and the same each time. Needs `onnx` and `numpy`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from graph import Builder, Shape, with_text


class Tiny(Shape):
    layers, hidden, ffn, heads, kv_heads, head_dim, context, vocab = 2, 32, 64, 2, 1, 16, 512, 304

    def __init__(self):
        self.random = np.random.default_rng(20)
        self.arrays = {}

    def array(self, name):
        sizes = {
            "token_embd": (self.vocab, self.hidden), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32),
            "attn_output": (32, 32), "ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64),
        }  # fmt: skip
        if name not in self.arrays:
            size = sizes.get(name.removesuffix(".weight").split(".")[-1])
            made = self.random.standard_normal(size or self.hidden)
            self.arrays[name] = (made * 0.3 if size else 1 + made * 0.1).astype(np.float32)
        return self.arrays[name]


def byte_characters():
    """The character that byte-level tokenizers have for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def text_files():
    vocab = {character: byte for byte, character in enumerate(byte_characters())}
    vocab |= {f"unused{token}": token for token in range(256, 300)}
    control = ["<|im_start|>", "<|im_end|>", "<think>", "<pad>"]
    added = [
        {"id": 300 + index, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for index, content in enumerate(control)
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": vocab, "merges": []},
    }  # fmt: skip
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer_config.json": json.dumps({"eos_token": "<|im_end|>", "chat_template": template}),
        "generation_config.json": json.dumps({"eos_token_id": [301], "do_sample": True, "temperature": 0.7}),
        "config.json": json.dumps({"max_position_embeddings": Tiny.context}),
    }


def main():
    folder = Path(sys.argv[1])
    for name, bits, plain in [("decoder", 32, False), ("decoder_plain", 32, True), ("decoder_q8", 8, False)]:
        model = with_text(Builder(Tiny(), bits, plain).build(name), text_files())
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()

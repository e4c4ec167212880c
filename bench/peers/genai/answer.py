"""Answers of onnxruntime-genai as its users write them, a generator for each request: the servers around it have this loop in common."""

import os
from collections.abc import Iterator

import onnxruntime_genai


class Answers:
    """Of the model in a folder, which has model.onnx and genai_config.json, and for text tokenizer.json."""

    def __init__(self, folder: str) -> None:
        self.model = onnxruntime_genai.Model(folder)
        self.tokenizer = onnxruntime_genai.Tokenizer(self.model) if os.path.exists(f"{folder}/tokenizer.json") else None

    def to(self, prompt: list[int], max_tokens: int) -> Iterator[tuple[int, str]]:
        """Tokens and their text, greedily; the end is never drawn, so that all answers have the same length."""
        params = onnxruntime_genai.GeneratorParams(self.model)
        length = len(prompt) + max_tokens
        params.set_search_options(do_sample=False, max_length=length, min_length=length)
        generator = onnxruntime_genai.Generator(self.model, params)
        generator.append_tokens(prompt)
        text = self.tokenizer.create_stream() if self.tokenizer else None
        for _ in range(max_tokens):
            if generator.is_done():
                break
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            yield token, text.decode(token) if text else ""

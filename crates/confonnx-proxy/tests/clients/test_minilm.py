"""A published encoder through the proxy: equal to what an implementation in another library makes of its weights.

`make conformance-embeddings` builds the model (examples/embeddings) and says where it is.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Callable

import candding
import numpy as np
import openai
import pytest
from conftest import Proxy, Server, executable

MINILM = Path(os.environ["CONFONNX_MINILM"])
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Confidential inference in a TEE",
    "é à ü — Größe 你好",
    "short",
    "word " * 200,
    "A",
    "Who wrote Faust?  \n tabs\t",
    "[SEP] is a token",
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 5,
    "1,234.56 €",
]


@pytest.fixture(scope="module")
def client(
    start_server: Callable[..., Server], start_proxy: Callable[..., Proxy], tmp_path_factory: pytest.TempPathFactory
) -> openai.OpenAI:
    model = tmp_path_factory.mktemp("minilm") / "minilm.onnx"
    annotate = [executable("confonnx"), "annotate", MINILM / "model.onnx", "--text", MINILM, "--out", model]
    subprocess.run([*map(str, annotate)], check=True)
    proxy = start_proxy("--url", start_server(model).url, "--enclave-allow-debug")
    return openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="any", max_retries=0)


@pytest.fixture(scope="module")
def reference() -> candding.TextEmbedding:
    """The same model in candle, from the weights as they were published, without ONNX."""
    return candding.TextEmbedding(str(MINILM), device="cpu", dtype="f32")


def test_vectors_are_equal(client: openai.OpenAI, reference: candding.TextEmbedding) -> None:
    answer = client.embeddings.create(model="minilm", input=TEXTS)
    found = np.array([one.embedding for one in answer.data])
    expected = reference.embed(TEXTS)
    print("largest difference", np.abs(found - expected).max())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (len(TEXTS), 384)
    # The vectors of texts that mean different things are far apart.
    assert (found @ found.T)[0, 1] < 0.5


def test_many_texts_of_all_lengths(client: openai.OpenAI, reference: candding.TextEmbedding) -> None:
    texts = [f"{place} " + "and so on " * (place % 60) for place in range(120)]
    answer = client.embeddings.create(model="minilm", input=texts)
    found = np.array([one.embedding for one in answer.data])
    np.testing.assert_allclose(found, reference.embed(texts), atol=1e-5)


def test_what_is_cut_is_cut_as_by_others(client: openai.OpenAI, reference: candding.TextEmbedding) -> None:
    long = "many words " * 400
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="minilm", input=long)
    assert refused.value.code == "context_length_exceeded"
    most = json.loads((MINILM / "sentence_bert_config.json").read_text())["max_seq_length"]
    cut = client.embeddings.create(model="minilm", input=long, extra_body={"truncate": True})
    assert cut.usage.prompt_tokens == most
    np.testing.assert_allclose(cut.data[0].embedding, reference.embed([long])[0], atol=1e-5)

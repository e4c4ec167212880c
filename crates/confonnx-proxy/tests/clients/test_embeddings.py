"""Vectors through `openai` equal those that another implementation makes of the same model and files."""

from __future__ import annotations

import base64
import json
from typing import Callable

import numpy as np
import onnx
import openai
import pytest
from conftest import ROOT, Proxy, Server
from onnx.reference import ReferenceEvaluator

ENCODER = ROOT / "crates" / "confonnx-engine" / "tests" / "data" / "encoder.onnx"
TEXTS = ["a b", "x", "k l m n o p q r", "Query : A", "unheard of", "a"]


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(ENCODER, "--model-name", "encoder")


@pytest.fixture(scope="module")
def proxy(start_proxy: Callable[..., Proxy], server: Server) -> Proxy:
    return start_proxy("--url", server.url, "--enclave-allow-debug")


@pytest.fixture
def client(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="any", max_retries=0)


def by_hand(texts: list[str], dimensions: int | None = None) -> np.ndarray:
    """Vectors by other code: words by the file's list, ONNX's reference for the graph, the mean of a text's tokens,
    length 1."""
    model = onnx.load(ENCODER)
    files = {entry.key.removeprefix("confonnx.text."): entry.value for entry in model.metadata_props}
    words = json.loads(files["tokenizer.json"])["model"]["vocab"]
    rows = [[words["[CLS]"], *(words.get(word, words["[UNK]"]) for word in text.lower().split()), words["[SEP]"]] for text in texts]
    width = max(map(len, rows))
    ids = np.array([row + [words["[PAD]"]] * (width - len(row)) for row in rows], dtype=np.int64)
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=np.int64)
    [hidden] = ReferenceEvaluator(model).run(None, {"input_ids": ids, "attention_mask": mask})
    vectors = ((hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None])[:, :dimensions]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.parametrize("dimensions", [None, 3])
def test_vectors_are_those_of_another_implementation(client: openai.OpenAI, encoding: str | None, dimensions: int | None) -> None:
    more = {"dimensions": dimensions} if dimensions else {}
    # Without a format, this client asks for base64 and decodes it.
    more |= {"encoding_format": encoding} if encoding else {}
    answer = client.embeddings.create(model="encoder", input=TEXTS, **more)
    assert [one.index for one in answer.data] == list(range(len(TEXTS)))
    vectors = [one.embedding for one in answer.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), np.float32) for vector in vectors]
    np.testing.assert_allclose(np.array(vectors), by_hand(TEXTS, dimensions), atol=1e-5)
    tokens = sum(len(text.split()) + 2 for text in TEXTS)
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)
    assert answer.model == "encoder"


def test_tokens_in_place_of_texts(client: openai.OpenAI) -> None:
    texts = client.embeddings.create(model="encoder", input=["a b"]).data[0].embedding
    for tokens in ([2, 6, 7, 3], [[2, 6, 7, 3]]):
        assert client.embeddings.create(model="encoder", input=tokens).data[0].embedding == pytest.approx(texts, abs=1e-6)


def test_what_is_too_long_is_an_error_unless_it_may_be_cut(client: openai.OpenAI) -> None:
    long = "a " * 40
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="encoder", input=["a", long])
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    assert "input[1] has 42 tokens; expected 16 at most" in refused.value.message
    cut = client.embeddings.create(model="encoder", input=long, extra_body={"truncate": True})
    np.testing.assert_allclose(cut.data[0].embedding, by_hand(["a " * 14])[0], atol=1e-5)
    assert cut.usage.prompt_tokens == 16


def test_prompts_are_the_models(client: openai.OpenAI) -> None:
    query = client.embeddings.create(model="encoder", input="a", extra_body={"prompt_name": "query"})
    np.testing.assert_allclose(query.data[0].embedding, by_hand(["query : a"])[0], atol=1e-5)

"""Writes the encoder and the decoder that tests use, in the form of Hugging Face optimum and transformers.js.

    python examples/chat/pair.py crates/confonnx-engine/tests/data

Random weights: what they say means nothing, but it depends on every token that the encoder reads, in its place.
The decoder is "merged": by `use_cache_branch` it makes keys and values of what the encoder says, at its first step, or goes on
with those that it is given, and then gives none of them back. Then says what bare ONNX Runtime's loop, here, makes of a text.
Needs `onnx`, `numpy` and `onnxruntime`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from tiny import text_files

IR, OPSET = 8, 17
LAYERS, HIDDEN, HEADS, SIZE, FFN, VOCAB, CONTEXT = 2, 32, 2, 16, 64, 304, 128
END, START = 301, 303
MATRICES = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN), "o": (HIDDEN, HIDDEN), "up": (HIDDEN, FFN), "down": (FFN, HIDDEN)}


class Graph:
    """Nodes, one after another; weights are made when they are first named, and are the outermost graph's."""

    def __init__(self, prefix, weights):
        self.prefix, self.weights, self.nodes = prefix, weights, []

    def __call__(self, op, *inputs, name=None, **attributes):
        name = name or f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def weight(self, name, shape):
        if name not in self.weights:
            random = np.random.default_rng([len(self.weights), 5])
            self.weights[name] = (random.standard_normal(shape) * 0.35).astype(np.float32)
        return name

    def constant(self, name, values):
        self.weights[name] = np.array(values)
        return name

    def embed(self, ids, past=None):
        """Tokens in their places, of which `past` were before."""
        words = self("Gather", self.weight("words", (VOCAB, HIDDEN)), ids)
        length = self("Gather", self("Shape", ids), self.constant("one", 1))
        begin = self("Gather", self("Shape", past), self.constant("two", 2)) if past else self.constant("zero", 0)
        places = self("Range", begin, self("Add", begin, length), self.constant("one", 1))
        return self("Add", words, self("Gather", self.weight("places", (CONTEXT, HIDDEN)), places)), begin, length

    def norm(self, x):
        return self("LayerNormalization", x, self.constant("ones", np.ones(HIDDEN, np.float32)), axis=-1)

    def linear(self, x, layer, which):
        return self("MatMul", x, self.weight(f"{layer}.{which}", MATRICES[which]))

    def heads(self, x):
        parts = self("Reshape", x, self.constant("parts", np.array([0, 0, HEADS, SIZE], np.int64)))
        return self("Transpose", parts, perm=[0, 2, 1, 3])

    def attend(self, x, layer, keys, values, bias):
        scores = self("MatMul", self.heads(self.linear(x, layer, "q")), self("Transpose", keys, perm=[0, 1, 3, 2]))
        shares = self("Softmax", self("Add", self("Mul", scores, self.constant("scale", np.float32(SIZE**-0.5))), bias), axis=-1)
        mixed = self("Transpose", self("MatMul", shares, values), perm=[0, 2, 1, 3])
        whole = self("Reshape", mixed, self.constant("whole", np.array([0, 0, HIDDEN], np.int64)))
        return self.linear(whole, layer, "o")

    def padding(self, mask):
        """What is added where a mask counts nothing."""
        wide = self("Unsqueeze", self("Cast", mask, to=T.FLOAT), self.constant("axes", np.array([1, 2], np.int64)))
        return self("Mul", self("Sub", self.constant("whole_one", np.float32(1)), wide), self.constant("least", np.float32(-1e9)))

    def feed(self, x, layer):
        return self("Add", x, self.linear(self("Relu", self.linear(self.norm(x), layer, "up")), layer, "down"))


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def model(name, nodes, inputs, outputs, weights, properties=()):
    initializers = [numpy_helper.from_array(array, key) for key, array in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="confonnx-test")
    made.ir_version = IR
    helper.set_model_props(made, dict(properties))
    onnx.checker.check_model(made, full_check=True)
    return made


def encoder():
    weights = {}
    g = Graph("e", weights)
    x, _, _ = g.embed("input_ids")
    bias = g.padding("attention_mask")
    normed = g.norm(x)
    keys, values = (g.heads(g.linear(normed, "read", which)) for which in "kv")
    x = g("Add", x, g.attend(normed, "read", keys, values, bias))
    g("Identity", g.norm(g.feed(x, "read")), name="last_hidden_state")
    ids = [value(name, T.INT64, ["batch_size", "encoder_sequence_length"]) for name in ("input_ids", "attention_mask")]
    out = [value("last_hidden_state", T.FLOAT, ["batch_size", "encoder_sequence_length", HIDDEN])]
    return model("encoder", g.nodes, ids, out, weights)


def names(part):
    return [f"{part}.{layer}.{of}.{kind}" for layer in range(LAYERS) for of in ("decoder", "encoder") for kind in ("key", "value")]


def branch(first, weights):
    """The first step, or the one after."""
    g = Graph("f" if first else "n", weights)
    x, past, length = g.embed("input_ids", None if first else "past_key_values.0.decoder.key")
    # Whoever comes later is not seen.
    total = g("Add", past, length)
    rows, columns = (g("Range", begin, total, g.constant("one", 1)) for begin in (past, g.constant("zero", 0)))
    hidden = g("Greater", g("Unsqueeze", columns, g.constant("first_axis", np.array([0], np.int64))), g("Unsqueeze", rows, g.constant("last_axis", np.array([1], np.int64))))
    later = g("Mul", g("Cast", hidden, to=T.FLOAT), g.constant("least", np.float32(-1e9)))
    padding = g.padding("encoder_attention_mask")
    given = {}
    for layer in range(LAYERS):
        normed = g.norm(x)
        kept = []
        for which, kind in (("k", "key"), ("v", "value")):
            new = g.heads(g.linear(normed, f"self{layer}", which))
            before = f"past_key_values.{layer}.decoder.{kind}"
            kept.append(new if first else g("Concat", before, new, axis=2))
            given[f"present.{layer}.decoder.{kind}"] = kept[-1]
        x = g("Add", x, g.attend(normed, f"self{layer}", *kept, later))
        crossed = []
        for which, kind in (("k", "key"), ("v", "value")):
            before = f"past_key_values.{layer}.encoder.{kind}"
            crossed.append(g.heads(g.linear("encoder_hidden_states", f"cross{layer}", which)) if first else before)
            nothing = g.constant("nothing", np.zeros((0, HEADS, 1, SIZE), np.float32))
            given[f"present.{layer}.encoder.{kind}"] = crossed[-1] if first else nothing
        x = g("Add", x, g.attend(g.norm(x), f"cross{layer}", *crossed, padding))
        x = g.feed(x, f"self{layer}")
    given["logits"] = g("MatMul", g.norm(x), g.weight("said", (HIDDEN, VOCAB)))
    outputs = ["logits", *names("present")]
    made = [g("Identity", given[name], name=f"{name}_{g.prefix}") for name in outputs]
    return helper.make_graph(g.nodes, g.prefix, [], [helper.make_empty_tensor_value_info(name) for name in made])


def decoder(properties):
    weights = {}
    first, later = branch(True, weights), branch(False, weights)
    outputs = ["logits", *names("present")]
    node = helper.make_node("If", ["use_cache_branch"], outputs, then_branch=later, else_branch=first)
    inputs = [
        value("encoder_attention_mask", T.INT64, ["batch_size", "encoder_sequence_length"]),
        value("input_ids", T.INT64, ["batch_size", "decoder_sequence_length"]),
        value("encoder_hidden_states", T.FLOAT, ["batch_size", "encoder_sequence_length", HIDDEN]),
        *(value(name, T.FLOAT, ["batch_size", HEADS, f"past_{name.split('.')[2]}_length", SIZE]) for name in names("past_key_values")),
        value("use_cache_branch", T.BOOL, [1]),
    ]
    given = [value("logits", T.FLOAT, ["batch_size", "decoder_sequence_length", VOCAB])]
    given += [value(name, T.FLOAT, ["batch_or_none", HEADS, f"{name.split('.')[2]}_length", SIZE]) for name in names("present")]
    return model("translator", [node], inputs, given, weights, properties)


def properties():
    files = {name: json.loads(content) for name, content in text_files().items()}
    end = {"id": "<|im_end|>", "ids": [END], "tokens": ["<|im_end|>"]}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    files["tokenizer.json"]["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": {"<|im_end|>": end}}
    files["tokenizer_config.json"] = {"eos_token": "<|im_end|>", "pad_token": "<pad>"}
    files["generation_config.json"] = {"decoder_start_token_id": START, "eos_token_id": END, "pad_token_id": START, "bad_words_ids": [[START]]}
    files["config.json"] = {"is_encoder_decoder": True, "max_position_embeddings": CONTEXT}
    said = {f"confonnx.text.{name}": json.dumps(content, ensure_ascii=False) for name, content in files.items()}
    return said | {"confonnx.encoder": "translator_encoder.onnx"}


def loop(folder, text, most):
    """What bare ONNX Runtime says, greedily, by this program's own loop."""
    read, say = (onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"]) for name in ("translator_encoder.onnx", "translator.onnx"))
    source = np.array([[*text.encode(), END]])
    mask = np.ones_like(source)
    (hidden,) = read.run(None, {"input_ids": source, "attention_mask": mask})
    past = {name: np.zeros((1, HEADS, 0, SIZE), np.float32) for name in names("past_key_values")}
    said, outputs = [START], ["logits", *names("present")]
    while len(said) <= most and said[-1] != END:
        given = {"encoder_attention_mask": mask, "encoder_hidden_states": hidden, "input_ids": np.array([said[-1:]]), "use_cache_branch": np.array([len(said) > 1])}
        found = dict(zip(outputs, say.run(outputs, given | past)))
        for name in past:
            if "decoder" in name or len(said) == 1:
                past[name] = found[name.replace("past_key_values", "present")]
        logits = found["logits"][0, -1]
        logits[START] = -np.inf
        said.append(int(logits.argmax()))
    return said[1:]


def main():
    folder = Path(sys.argv[1])
    for name, made in [("translator_encoder", encoder()), ("translator", decoder(properties()))]:
        (folder / f"{name}.onnx").write_bytes(made.SerializeToString(deterministic=True))
    for text in ("hello", "olleh", "a longer text"):
        print(f"{text!r}: {loop(folder, text, 12)}")


if __name__ == "__main__":
    main()

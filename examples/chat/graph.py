"""A decoder of the Llama family as an ONNX graph with a cache of keys and values.

Inputs are `input_ids` and `attention_mask` (int64), `position_ids` if attention is of plain operators, and
`past_key_values.N.key` and `.value`; outputs are `logits` and `present.N.key` and `.value`: what Hugging Face optimum and
onnxruntime-genai name them. Keys in the cache are already rotated.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"
BLOCK = 32


class Shape:
    """Sizes of a model, and `array(name)`, which gives its weights as float32 [outputs, inputs]."""

    layers = hidden = ffn = heads = kv_heads = head_dim = context = vocab = 0
    theta, eps = 10000.0, 1e-5

    def array(self, name):
        raise NotImplementedError

    def blocks(self, name):
        """Weights in blocks of 8 bits as they are at the source (values uint8, scales, zero points or none); None if they are not."""


def quantized(weights):
    """Blocks of 32 in 8 bits, with a zero point each: values uint8, scales float32, zero points uint8."""
    blocks = weights.reshape(weights.shape[0], -1, BLOCK)
    low, high = np.minimum(blocks.min(2), 0), np.maximum(blocks.max(2), 0)
    scale = np.maximum((high - low) / 255, 1e-12).astype(np.float32)
    zero = np.rint(-low / scale)
    values = np.clip(np.rint(blocks / scale[..., None]) + zero[..., None], 0, 255)
    return values.astype(np.uint8), scale, zero.astype(np.uint8)


class Builder:
    """Makes the graph; `bits` is 32 or 8, `plain` has attention made of operators of ONNX alone."""

    def __init__(self, model, bits=32, plain=False):
        self.model, self.bits, self.plain = model, bits, plain
        self.nodes, self.initializers, self.constants = [], [], {}

    def op(self, kind, inputs, outputs=None, domain="", **attributes):
        outputs = outputs or [f"{kind}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def weight(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def const(self, value):
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.constants:
            self.constants[key] = self.weight(f"constant_{len(self.constants)}", value)
        return self.constants[key]

    def ints(self, *values):
        return self.const(np.array(values, np.int64))

    def linear(self, x, label, names):
        weights = np.concatenate([self.model.array(name) for name in names])
        if self.bits == 32:
            return self.op("MatMul", [x, self.weight(f"{label}.weight", weights.T)])
        return self.blocks(x, label, *quantized(weights))

    def blocks(self, x, label, values, scales, zeros, shared=None, outputs=None):
        inputs = [x, shared or self.weight(f"{label}.qweight", values), self.weight(f"{label}.scales", scales)]
        if zeros is not None:
            inputs.append(self.weight(f"{label}.zero_points", zeros))
        size = {"N": values.shape[0], "K": values.shape[1] * BLOCK, "bits": 8, "block_size": BLOCK}
        # Without the accuracy level, one row takes many times as long.
        return self.op("MatMulNBits", inputs, outputs, MS, accuracy_level=4, **size)

    def norm(self, x, label, name):
        gamma, eps = self.weight(f"{label}.weight", self.model.array(name)), self.model.eps
        if not self.plain:
            return self.op("SimplifiedLayerNormalization", [x, gamma], axis=-1, epsilon=eps, stash_type=1)
        mean = self.op("ReduceMean", [self.op("Mul", [x, x]), self.ints(-1)], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, self.const(np.float32(eps))])])
        return self.op("Mul", [self.op("Div", [x, root]), gamma])

    def rotation(self):
        """Cosines and sines of each position; and what attention needs to know of the mask."""
        half = self.model.head_dim // 2
        inverse = 1.0 / self.model.theta ** (np.arange(half, dtype=np.float64) / half)
        angles = np.arange(self.model.context, dtype=np.float64)[:, None] * inverse[None]
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        one = self.const(np.int64(1))
        total = self.op("Gather", [self.op("Shape", ["attention_mask"]), one], axis=0)
        if not self.plain:
            there = self.op("Sub", [self.op("ReduceSum", ["attention_mask", self.ints(1)], keepdims=0), self.ints(1)])
            self.there = self.op("Cast", [there], to=TensorProto.INT32)
            self.total = self.op("Cast", [total], to=TensorProto.INT32)
            self.cos, self.sin = self.weight("cos_cache", cos), self.weight("sin_cache", sin)
            return
        length = self.op("Gather", [self.op("Shape", ["input_ids"]), one], axis=0)
        zero = self.const(np.int64(0))
        places = self.op("Range", [zero, total, one])
        own = self.op("Unsqueeze", [self.op("Range", [self.op("Sub", [total, length]), total, one]), self.ints(1)])
        valid = self.op("Unsqueeze", [self.op("Cast", ["attention_mask"], to=TensorProto.BOOL), self.ints(1, 2)])
        seen = self.op("And", [self.op("LessOrEqual", [places, own]), valid])
        self.mask = self.op("Where", [seen, self.const(np.float32(0)), self.const(np.float32(-3e38))])
        both = [self.weight(f"{name}_cache", np.concatenate([half, half], 1)) for name, half in (("cos", cos), ("sin", sin))]
        self.cos, self.sin = (
            self.op("Unsqueeze", [self.op("Gather", [cache, "position_ids"], axis=0), self.ints(1)]) for cache in both
        )

    def attention(self, x, layer):
        model, label = self.model, f"model.layers.{layer}.attn"
        names = [f"blk.{layer}.attn_{part}.weight" for part in "qkv"]
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        if not self.plain:
            qkv = self.linear(x, f"{label}.qkv_proj", names)
            inputs = [qkv, "", "", *past, self.there, self.total, self.cos, self.sin]
            return self.op(
                "GroupQueryAttention", inputs, [f"{label}.out", *present], MS, num_heads=model.heads,
                kv_num_heads=model.kv_heads, scale=model.head_dim**-0.5, do_rotary=1, rotary_interleaved=0,
            )  # fmt: skip
        size, half = model.head_dim, model.head_dim // 2

        def heads(value, count):
            return self.op("Transpose", [self.op("Reshape", [value, self.ints(0, 0, count, size)])], perm=[0, 2, 1, 3])

        def rotated(value):
            first = self.op("Slice", [value, self.ints(0), self.ints(half), self.ints(3)])
            second = self.op("Slice", [value, self.ints(half), self.ints(size), self.ints(3)])
            turned = self.op("Concat", [self.op("Neg", [second]), first], axis=3)
            return self.op("Add", [self.op("Mul", [value, self.cos]), self.op("Mul", [turned, self.sin])])

        def repeated(value):
            times = model.heads // model.kv_heads
            if times == 1:
                return value
            wide = self.op("Expand", [self.op("Unsqueeze", [value, self.ints(2)]), self.ints(1, 1, times, 1, 1)])
            return self.op("Reshape", [wide, self.ints(0, model.heads, -1, size)])

        q, k, v = (self.linear(x, f"{label}.{part}_proj", [name]) for part, name in zip("qkv", names))
        q, k, v = rotated(heads(q, model.heads)), rotated(heads(k, model.kv_heads)), heads(v, model.kv_heads)
        k = self.op("Concat", [past[0], k], [present[0]], axis=2)
        v = self.op("Concat", [past[1], v], [present[1]], axis=2)
        scores = self.op("MatMul", [q, self.op("Transpose", [repeated(k)], perm=[0, 1, 3, 2])])
        scores = self.op("Mul", [scores, self.const(np.float32(size**-0.5))])
        shares = self.op("Softmax", [self.op("Add", [scores, self.mask])], axis=-1)
        mixed = self.op("Transpose", [self.op("MatMul", [shares, repeated(v)])], perm=[0, 2, 1, 3])
        return self.op("Reshape", [mixed, self.ints(0, 0, model.heads * size)])

    def embedding(self):
        if self.bits == 32:
            self.weight("model.embed_tokens.weight", self.model.array("token_embd.weight"))
            return self.op("Gather", ["model.embed_tokens.weight", "input_ids"], axis=0)
        # The table has the shape that MatMulNBits wants, so that the head has the same initializer.
        self.table = self.model.blocks("token_embd.weight") or quantized(self.model.array("token_embd.weight"))
        values, scales, zeros = self.table
        inputs = [self.weight("lm_head.qweight", values), "input_ids", self.weight("model.embed_tokens.scales", scales[..., None])]
        if zeros is not None:
            inputs.append(self.weight("model.embed_tokens.zero_points", zeros[..., None]))
        found = self.op("GatherBlockQuantized", inputs, None, MS, bits=8, block_size=BLOCK, gather_axis=0, quantize_axis=2)
        return self.op("Reshape", [found, self.ints(0, 0, self.model.hidden)])

    def head(self, x):
        # Logits are made of the last tokens alone: the others' are what a long prompt costs most.
        start = self.op("Neg", [self.op("Reshape", ["num_logits_to_keep", self.ints(1)])])
        x = self.op("Slice", [x, start, self.ints(2**31 - 1), self.ints(1)])
        if self.bits == 8:
            self.blocks(x, "lm_head", *self.table, shared="lm_head.qweight", outputs=["logits"])
        elif self.plain:
            self.op("MatMul", [x, self.op("Transpose", ["model.embed_tokens.weight"], perm=[1, 0])], ["logits"])
        else:
            self.op("FusedMatMul", [x, "model.embed_tokens.weight"], ["logits"], MS, transA=0, transB=1)

    def build(self, name):
        model = self.model
        x = self.embedding()
        self.rotation()
        for layer in range(model.layers):
            label, blk = f"model.layers.{layer}", f"blk.{layer}"
            mixed = self.attention(self.norm(x, f"{label}.input_norm", f"{blk}.attn_norm.weight"), layer)
            x = self.op("Add", [x, self.linear(mixed, f"{label}.attn.o_proj", [f"{blk}.attn_output.weight"])])
            normed = self.norm(x, f"{label}.post_norm", f"{blk}.ffn_norm.weight")
            gate = self.linear(normed, f"{label}.mlp.gate_proj", [f"{blk}.ffn_gate.weight"])
            up = self.linear(normed, f"{label}.mlp.up_proj", [f"{blk}.ffn_up.weight"])
            inner = self.op("Mul", [self.op("Mul", [gate, self.op("Sigmoid", [gate])]), up])
            x = self.op("Add", [x, self.linear(inner, f"{label}.mlp.down_proj", [f"{blk}.ffn_down.weight"])])
        self.head(self.norm(x, "model.norm", "output_norm.weight"))

        value, real, whole = helper.make_tensor_value_info, TensorProto.FLOAT, TensorProto.INT64
        inputs = [value("input_ids", whole, ["batch", "sequence"]), value("attention_mask", whole, ["batch", "total"])]
        if self.plain:
            inputs.append(value("position_ids", whole, ["batch", "sequence"]))
        inputs.append(value("num_logits_to_keep", whole, []))
        outputs = [value("logits", real, ["batch", "kept", model.vocab])]
        for layer in range(model.layers):
            for part in ("key", "value"):
                size = lambda length: ["batch", model.kv_heads, length, model.head_dim]  # noqa: E731
                inputs.append(value(f"past_key_values.{layer}.{part}", real, size("past")))
                outputs.append(value(f"present.{layer}.{part}", real, size("total")))
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 18)]
        if any(node.domain == MS for node in self.nodes):
            opsets.append(helper.make_opsetid(MS, 1))
        made = helper.make_model(graph, opset_imports=opsets, producer_name="confonnx-example")
        made.ir_version = 9
        return made


TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json")


def with_text(model, files):
    """Puts the files that say how text is made into the model, as `confonnx annotate --text` does."""
    for name in TEXT_FILES:
        if name in files:
            entry = model.metadata_props.add()
            entry.key, entry.value = f"confonnx.text.{name}", files[name]
    return model


def with_independent_rows(model):
    """States that in this graph no caller's text meets another's, as `confonnx annotate` does, so that texts may go on
    together."""
    for key, value in (("confonnx.rows_independent", "true"), ("confonnx.batch_axis", "0")):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model

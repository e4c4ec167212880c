"""Makes requests with random operators and shapes to a live server that other callers use meanwhile.

    fuzz.py [--seconds N] [--seed N] [FLAG…]

Models of one operator, made of ONNX's operator schemas, get inputs of extreme shapes and values; FLAGs go to the server. Beside
them other callers ask a model of their own. Exits 1 if the server ends, another caller's answer changes or fails, or a
request takes longer than its deadline and a margin.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
import warnings

import numpy as np
import onnx
from live import Live, Trial, bare
from onnx import TensorProto as T
from onnx import defs, helper

from confonnx.exceptions import ServerError, TransportError

MODELS = 60
REQUESTS = 12
DEADLINE = 10
MARGIN = 20

TYPES = {
    "tensor(float)": T.FLOAT, "tensor(double)": T.DOUBLE, "tensor(int64)": T.INT64, "tensor(int32)": T.INT32,
    "tensor(bool)": T.BOOL, "tensor(string)": T.STRING, "tensor(uint8)": T.UINT8, "tensor(int8)": T.INT8,
    "tensor(float16)": T.FLOAT16, "tensor(uint64)": T.UINT64,
}  # fmt: skip
SIZES = [0, 0, 1, 1, 2, 3, 4, 5, 8, 17, 100, 1023]
LARGE = [65_537, 1_000_003]
NUMBERS = [0, 1, -1, 2, 3, 7, -3, 2**31 - 1, -(2**31), 2**62, -(2**63)]
REALS = [0.0, 1.0, -1.0, 0.5, 1e30, -1e30, float("nan"), float("inf"), -float("inf"), 1e-40]


def attribute(chosen: random.Random, name: str, kind: object) -> object:
    kinds = defs.OpSchema.AttrType
    if kind == kinds.INT:
        return chosen.choice([0, 1, -1, 2, 3, 4, 7])
    if kind == kinds.INTS:
        return [chosen.choice([0, 1, 2, 3, -1]) for _ in range(chosen.randint(0, 4))]
    if kind == kinds.FLOAT:
        return chosen.choice([0.0, 0.5, 1.0, -1.0, 1e30])
    if kind == kinds.FLOATS:
        return [chosen.choice([0.0, 0.5, 2.0]) for _ in range(chosen.randint(0, 4))]
    if kind == kinds.STRING:
        return chosen.choice(["", "linear", "nearest", "SAME_UPPER", "reflect", "forward", "bidirectional", "i,i->"])
    return None


def model(chosen: random.Random) -> bytes | None:
    """A model of one operator."""
    schema = chosen.choice(SCHEMAS)
    bound: dict[str, int] = {}
    constraints = {constraint.type_param_str: list(constraint.allowed_type_strs) for constraint in schema.type_constraints}

    def kind(parameter: object) -> int | None:
        allowed = constraints.get(parameter.type_str, [parameter.type_str])
        known = [TYPES[name] for name in allowed if name in TYPES]
        if not known:
            return None
        return bound.setdefault(parameter.type_str, T.FLOAT if T.FLOAT in known and chosen.random() < 0.6 else chosen.choice(known))

    inputs, outputs = [], []
    for parameter in schema.inputs:
        if parameter.option == defs.OpSchema.FormalParameterOption.Optional and chosen.random() < 0.4:
            inputs.append(None)
        elif (found := kind(parameter)) is None:
            return None
        else:
            copies = chosen.randint(1, 3) if parameter.option == defs.OpSchema.FormalParameterOption.Variadic else 1
            inputs += [found] * copies
    for parameter in list(schema.outputs)[: chosen.randint(1, max(1, len(schema.outputs)))]:
        if (found := kind(parameter)) is None:
            return None
        outputs.append(found)
    attributes = {}
    for name, given in schema.attributes.items():
        if given.required or chosen.random() < 0.3:
            value = attribute(chosen, name, given.type)
            if value is None and given.required:
                return None
            if value is not None:
                attributes[name] = value
    names = ["" if found is None else f"i{index}" for index, found in enumerate(inputs)]
    node = helper.make_node(schema.name, names, [f"o{i}" for i in range(len(outputs))], domain=schema.domain)
    for name, value in attributes.items():
        if value == []:
            continue
        node.attribute.append(helper.make_attribute(name, value))
    take = [helper.make_tensor_value_info(name, found, None) for name, found in zip(names, inputs) if found]
    give = [helper.make_tensor_value_info(f"o{i}", found, None) for i, found in enumerate(outputs)]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph([node], "g", take, give), opset_imports=opsets, ir_version=10).SerializeToString()


def tensor(chosen: random.Random, numbers: np.random.Generator, kind: int, rank: int | None) -> np.ndarray:
    rank = chosen.choice([0, 1, 1, 2, 2, 3, 3, 4, 4, 5]) if rank is None else rank
    shape = [chosen.choice(SIZES[:9] if rank > 2 else SIZES) for _ in range(rank)]
    if rank and chosen.random() < 0.05:
        shape = [1] * rank
        shape[chosen.randrange(rank)] = chosen.choice(LARGE)
    if kind == T.STRING:
        return np.full(shape, chosen.choice(["", "a", "é\0", "x" * 1000]), dtype=object)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if dtype == np.bool_:
        return numbers.random(shape) < 0.5
    if dtype.kind == "f":
        values = numbers.standard_normal(shape) if chosen.random() < 0.6 else np.full(shape, chosen.choice(REALS))
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(dtype)
    if chosen.random() < 0.5:
        return np.asarray(numbers.integers(0, 4, shape)).astype(dtype)
    limits = np.iinfo(dtype)
    return np.full(shape, max(limits.min, min(limits.max, chosen.choice(NUMBERS))), dtype=dtype)


def innocent() -> tuple[bytes, list[tuple[np.ndarray, np.ndarray]]]:
    """The other callers' model, with their requests and bare ONNX Runtime's answers."""
    numbers = np.random.default_rng(5)
    weights = helper.make_tensor("w", T.FLOAT, [16, 8], numbers.standard_normal(128).astype(np.float32))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])]
    take, give = helper.make_tensor_value_info("x", T.FLOAT, ["n", 16]), helper.make_tensor_value_info("y", T.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "g", [take], [give], [weights])
    held = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    session = bare(held)
    asked = [numbers.standard_normal((rows, 16)).astype(np.float32) for rows in (1, 2, 5)]
    return held, [(x, session.run(None, {"x": x})[0]) for x in asked]


class Fault(Exception):
    """What no request may do: end the server, change or fail another caller's answer, take longer than its deadline."""


def caller(live: Live, pairs: list, stop: threading.Event, faults: list[str]) -> None:
    """Makes the same requests again and again."""
    with live.client(timeout=DEADLINE + MARGIN) as client:
        asked = 0
        while not stop.is_set() and live.alive():
            x, expected = pairs[asked % len(pairs)]
            asked += 1
            try:
                if client.predict({"x": x}, model="innocent")["y"].tobytes() != expected.tobytes():
                    faults.append("another caller's answer changed")
            except Exception as error:
                if getattr(error, "status", None) != 503:
                    faults.append(f"another caller's request failed: {type(error).__name__}: {error}")
            time.sleep(0.005)


def round_of(seed: int, until: float, flags: list[str], counts: dict[str, int]) -> None:
    chosen, numbers = random.Random(seed), np.random.default_rng(seed)
    models: dict[str, bytes] = {}
    with Trial() as trial:
        while len(models) < MODELS:
            made = model(chosen)
            if made is not None and trial.loads(made):
                models[f"m{len(models)}"] = made
    held, pairs = innocent()
    # If the server ends, the models at fault are known by name.
    with Live({**models, "innocent": held}, "--num-sessions", "1", "--inference-timeout", str(DEADLINE), *flags) as live:
        stop, faults = threading.Event(), []
        others = [threading.Thread(target=caller, args=(live, pairs, stop, faults)) for _ in range(2)]
        for other in others:
            other.start()
        try:
            with live.client(timeout=DEADLINE + MARGIN) as client:
                for name, made in models.items():
                    proto = onnx.load_from_string(made)
                    for _ in range(REQUESTS):
                        if time.monotonic() > until:
                            return
                        rank = chosen.choice([None, None, 2, 3, 4])
                        inputs = {i.name: tensor(chosen, numbers, i.type.tensor_type.elem_type, rank) for i in proto.graph.input}
                        what = f"seed {seed}: {proto.graph.node[0].op_type} {[(n, v.dtype.name, v.shape) for n, v in inputs.items()]}"
                        begun = time.monotonic()
                        try:
                            client.predict(inputs, model=name)
                            kind = "answered"
                        except TransportError as error:
                            kind = f"{error}"[:60] if live.alive() else "the server ended"
                        except ServerError as error:
                            kind = getattr(error, "code", "") or "refused"
                        except Exception as error:
                            kind = type(error).__name__
                        counts[kind] = counts.get(kind, 0) + 1
                        if not live.alive():
                            raise Fault(f"the server ended with {live.process.returncode}: {what}: {live.said()[-400:]}")
                        if time.monotonic() - begun > DEADLINE + MARGIN:
                            raise Fault(f"a request went past its deadline of {DEADLINE} s: {what}")
                        if faults:
                            raise Fault(f"{faults[0]}: beside {what}")
        finally:
            stop.set()
            for other in others:
                other.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; printed with what is found")
    arguments, flags = parser.parse_known_args()
    warnings.simplefilter("ignore")
    begun, seed, counts = time.monotonic(), arguments.seed, {}
    try:
        while time.monotonic() - begun < arguments.seconds:
            round_of(seed, begun + arguments.seconds, flags, counts)
            seed += 1
    except Fault as fault:
        print(f"fuzz-models: {fault}")
        sys.exit(1)
    finally:
        print(f"fuzz-models: {sum(counts.values())} requests in seeds {arguments.seed} to {seed}:", counts)


SCHEMAS = [schema for schema in defs.get_all_schemas() if schema.domain in ("", "ai.onnx.ml") and not schema.deprecated]

if __name__ == "__main__":
    main()

"""A head that nobody has (Shepp and Logan, 1974, with a lesion), and a model that finds what is brighter than its surroundings.

`python phantom.py FILE` writes the model: the mean over 3 pixels minus that over 31, above a threshold."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

SIDE = 256
# Of each ellipse: brightness, half axes, centre, angle in degrees.
ELLIPSES = [
    (1.0, 0.69, 0.92, 0, 0, 0),
    (-0.8, 0.6624, 0.874, 0, -0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0, 18),
    (0.1, 0.21, 0.25, 0, 0.35, 0),
    (0.1, 0.046, 0.046, 0, 0.1, 0),
    (0.1, 0.046, 0.046, 0, -0.1, 0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
]
LESION = (0.5, 0.06, 0.05, 0.3, -0.42, 20)


def head(seed: int = 7) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A slice of the head, float32 [1, 1, 256, 256], and where its lesion is."""
    y, x = np.mgrid[1 : -1 : SIDE * 1j, -1 : 1 : SIDE * 1j]

    def inside(a: float, b: float, cx: float, cy: float, degrees: float) -> npt.NDArray[np.bool_]:
        angle = np.deg2rad(degrees)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
        found: npt.NDArray[np.bool_] = (u / a) ** 2 + (v / b) ** 2 <= 1
        return found

    image = sum(light * inside(*where) for light, *where in [*ELLIPSES, LESION])
    noisy = image + np.random.default_rng(seed).normal(0, 0.03, image.shape)
    return noisy.astype(np.float32)[None, None], inside(*LESION[1:])


def model() -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    near, far = 3, 31
    kernel = np.zeros((1, 1, far, far), np.float32)
    middle = slice(far // 2 - near // 2, far // 2 + near // 2 + 1)
    kernel[0, 0, middle, middle] = 1 / near**2
    kernel -= np.float32(1 / far**2)
    weights = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.float32([0.3]), "threshold")]
    # The skull is bright, too, so only what lies within it counts.
    y, x = np.mgrid[1 : -1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    within = ((x / 0.58) ** 2 + (y / 0.79) ** 2 <= 1).astype(np.float32)[None, None]
    weights.append(numpy_helper.from_array(within, "within"))
    nodes = [
        helper.make_node("Conv", ["slice", "kernel"], ["contrast"], pads=[far // 2] * 4),
        helper.make_node("Mul", ["contrast", "within"], ["inner"]),
        helper.make_node("Sub", ["inner", "threshold"], ["above"]),
        helper.make_node("Mul", ["above", "forty"], ["steep"]),
        helper.make_node("Sigmoid", ["steep"], ["lesion"]),
    ]
    weights.append(numpy_helper.from_array(np.float32([40]), "forty"))
    shape = ["batch", 1, SIDE, SIDE]
    given = helper.make_tensor_value_info("slice", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("lesion", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "lesion", [given], [made], weights)
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(found)
    data: bytes = found.SerializeToString()
    return data


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as file:
        file.write(model())

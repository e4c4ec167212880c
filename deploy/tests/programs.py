"""What the tests of pods run: the programs of the workspace, and the example model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from chart import DEPLOY

ROOT = DEPLOY.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
VOLUME = "confonnx-test-models"

sys.path.insert(0, str(ROOT / "examples" / "digits"))

import digits  # noqa: E402

__all__ = ["ROOT", "TARGET", "VOLUME", "digits"]


def onnxruntime() -> Path:
    [found] = (ROOT / ".cache" / "onnxruntime").glob("libonnxruntime.so.*")
    return found

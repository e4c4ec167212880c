"""An image with the server that was built, its libraries and ONNX Runtime, and nothing else: no shell, no package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from chart import DEPLOY

NAME = "localhost/confonnx-server:test"
NEXT = "localhost/confonnx-server:test-next"
MODEL = "localhost/confonnx-server:test-model"
LOADER = "localhost/confonnx-loader:test"


def build(server: Path, onnxruntime: Path, folder: Path) -> str:
    root = folder / "root"
    libraries(server, root)
    libraries(onnxruntime, root)
    place(server, root / "confonnx" / "confonnx-server")
    place(onnxruntime, root / "confonnx" / "lib" / onnxruntime.name)
    for name in ("tmp", "models", "etc"):
        (root / name).mkdir(exist_ok=True)
    # /tmp has the mode that it has in the real image; podman gives it to a volume there, as Kubernetes does by itself.
    (root / "tmp").chmod(0o1777)
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, str(root), "/")
    buildah("config", "--entrypoint", '["/confonnx/confonnx-server"]', "--user", "65532:65532", container)
    buildah("commit", "--quiet", container, NAME)
    buildah("rm", container)
    return NAME


def libraries(program: Path, root: Path) -> None:
    listed = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        # The library lies at the path where the loader looks for it.
        place(Path(library), root / library.lstrip("/"))


def place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(source.resolve(), target)


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"buildah {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def another(folder: Path) -> str:
    """The image with another program: a byte after its end changes nothing of what it does, and its measurement."""
    server = folder / "root" / "confonnx" / "confonnx-server"
    changed = folder / "next"
    changed.write_bytes(server.read_bytes() + b"\n")
    changed.chmod(0o755)
    container = buildah("from", "--pull-never", NAME)
    buildah("copy", "--quiet", container, str(changed), "/confonnx/confonnx-server")
    buildah("commit", "--quiet", container, NEXT)
    buildah("rm", container)
    return NEXT


def with_model(model: Path) -> str:
    """The image with the model, made as the guides say on top of the one that `build` made."""
    given = {"MODEL_PATH": str(model), "IMAGE_NAME": MODEL, "BASE_IMAGE": NAME}
    done = subprocess.run([DEPLOY / "image" / "build_image.sh"], env={**os.environ, **given}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return MODEL


def loader(model: Path, folder: Path) -> str:
    """An image whose `cp` brings a model, in place of a program of one's own that fetches it from a store."""
    root = folder / "loader"
    libraries(Path("/bin/cp"), root)
    place(Path("/bin/cp"), root / "bin" / "cp")
    place(model, root / model.name)
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, str(root), "/")
    buildah("config", "--user", "65532:65532", container)
    buildah("commit", "--quiet", container, LOADER)
    buildah("rm", container)
    return LOADER

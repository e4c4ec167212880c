#!/usr/bin/env bash
# Puts a model into an image of its own, on top of confonnx's:
#   MODEL_PATH=digits.onnx IMAGE_NAME=digits deploy/image/build_image.sh
#   podman run -p 8888:8888 digits
# MODEL_PATH   an .onnx file, or an encrypted one (.onnx.age), whose key the server then has to be given
# IMAGE_NAME   the name in the local storage of podman
# BASE_IMAGE   default localhost/confonnx:release, which `make image` builds
# OUT          a folder for oci.tar and digest; default: none is kept
set -euo pipefail
fail() { printf 'build_image: %s\n' "$1" >&2; exit 1; }
[ -n "${MODEL_PATH:-}" ] || fail "MODEL_PATH: expected a model's file, found nothing"
[ -n "${IMAGE_NAME:-}" ] || fail "IMAGE_NAME: expected a name for the image, found nothing"
[ -f "$MODEL_PATH" ] || fail "MODEL_PATH: $MODEL_PATH is no file"
base=${BASE_IMAGE:-localhost/confonnx:release}
model=$(basename "$MODEL_PATH")
[[ $model =~ ^[A-Za-z0-9._-]+\.onnx(\.age)?$ ]] ||
    fail "MODEL_PATH: expected a name of letters, digits, '.', '_' and '-' that ends in .onnx or .onnx.age, found $model"
buildah inspect --type image "$base" >/dev/null 2>&1 || fail "no image $base: run 'make image' first, or set BASE_IMAGE"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install -D -m 0644 "$MODEL_PATH" "$work/models/$model"
cat >"$work/Containerfile" <<END
FROM $base
COPY models/ /models/
ENV CONFONNX_MODEL_PATH=/models/$model
END
"$(dirname "$0")/pack" "$work" "$IMAGE_NAME" "$work/Containerfile" --pull-never
if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT"
    cp "$work/oci.tar" "$work/digest" "$OUT/"
fi
printf "%s %s\n" "$IMAGE_NAME" "$(cat "$work/digest")"

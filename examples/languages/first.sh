#!/bin/sh
# Verifies a server, sends it an image of a one, and prints what it read: first.sh URL insecure|ENCLAVE_HASH.
set -eu
url=$1
if [ "$2" = insecure ]; then set -- --enclave-allow-debug; else set -- --enclave-hash "$2"; fi

pixels=$(awk 'BEGIN { for (i = 0; i < 784; i++)
    printf("%s%d", i ? ", " : "", i >= 4 * 28 && i < 24 * 28 && (i % 28 == 13 || i % 28 == 14)) }')
image="{\"image\": {\"type\": \"float32\", \"shape\": [1, 1, 28, 28], \"values\": [$pixels]}}"
# Attests first, and fails if the server is not what is expected: then nothing was sent.
answer=$(printf '%s' "$image" | confonnx predict --url "$url" "$@" --json-in -)
printf '%s' "$answer" | tr -d '\n ' | sed 's/.*"values":\[*//; s/].*//' |
    awk -F, '{ for (i = 1; i <= NF; i++) if ($i > $best || !best) best = i; print "digit", best - 1 }'

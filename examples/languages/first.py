"""Verifies a server, sends it an image of a one, and prints what it read: python first.py URL insecure|ENCLAVE_HASH."""

import sys

import numpy as np

from confonnx import AttestationError, Client

url, expected = sys.argv[1:]
program = {"enclave_allow_debug": True} if expected == "insecure" else {"enclave_hash": expected}
image = np.zeros((1, 1, 28, 28), np.float32)
image[0, 0, 4:24, 13:15] = 1
try:
    with Client(url, **program) as client:
        answer = client.predict({"image": image})
except AttestationError as refused:
    sys.exit(f"refused: {refused}")
print("digit", answer["probabilities"].argmax())

"""Calls in sequence by the Python package: calls.py URL SECONDS; prints calls in a second, and bytes of the large calls."""

import json
import sys
import time

import numpy as np

from confonnx import Client

url, seconds = sys.argv[1], float(sys.argv[2])
with Client(url, enclave_allow_debug=True) as client:
    found = {}
    for name, count in (("small", 1), ("large", 1024)):
        image = np.zeros((count, 1, 28, 28), np.float32)
        for _ in range(5):
            client.predict({"image": image})
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            client.predict({"image": image})
            calls += 1
        found[name] = calls / (time.perf_counter() - start) * (1 if count == 1 else image.nbytes)
print(json.dumps(found))

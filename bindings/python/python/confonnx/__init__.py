"""Confidential inference: clients of a confonnx server, and tools for ONNX models.

`confonnx.client.Client` is where to start.
"""

from confonnx._confonnx import __version__

__all__ = ["__version__"]

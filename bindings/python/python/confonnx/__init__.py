"""Confidential inference: clients of a confonnx server, and tools for ONNX models.

    from confonnx import Client

    with Client("https://models.example", enclave_hash="ab12…", enclave_model_hash="cd34…") as client:
        outputs = client.predict({"image": image})
"""

from confonnx._confonnx import __version__
from confonnx.annotate import annotate
from confonnx.client import AsyncChatStream, AsyncClient, Attestation, ChatAnswer, ChatStream, Client, ModelState
from confonnx.exceptions import (
    AttestationError,
    AuthError,
    Check,
    ConfonnxError,
    PolicyError,
    ReplyError,
    RequestError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)

__all__ = [
    "AsyncChatStream",
    "AsyncClient",
    "Attestation",
    "ChatAnswer",
    "ChatStream",
    "Client",
    "AttestationError",
    "AuthError",
    "Check",
    "ConfonnxError",
    "ModelState",
    "PolicyError",
    "ReplyError",
    "RequestError",
    "RequestTimeoutError",
    "ServerError",
    "TransportError",
    "__version__",
    "annotate",
]

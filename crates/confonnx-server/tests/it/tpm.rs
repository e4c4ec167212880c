//! A server that quotes with a real TPM in software, and clients that decide whom to believe.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use confonnx_attest::{produce::Attester, tpm::Device};
use confonnx_client::{Client, ClientError, Expectations, Options, Outcome, Policy, Verdict};
use confonnx_server::server::{Parts, Server};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::harness::*;

/// A TPM whose device is `dev/tpmrm0` below its root.
struct Emulator {
    root: tempfile::TempDir,
    process: Child,
}

impl Emulator {
    /// Starts a TPM; `None`, said plainly, when this machine has no `swtpm`.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn start() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let mut command = Command::new("swtpm");
        command
            .args(["socket", "--tpm2", "--tpmstate", "dir=.", "--server", "type=unixio,path=dev/tpmrm0"])
            .args(["--ctrl", "type=unixio,path=control", "--flags", "not-need-init,startup-clear"])
            .current_dir(root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match command.spawn() {
            Ok(process) => Some(Self { root, process }),
            Err(err) => {
                let missing = format!("install swtpm (Debian: apt-get install swtpm): {err}");
                assert!(std::env::var_os("CI").is_none(), "{missing}");
                eprintln!("skipped: {missing}");
                None
            }
        }
    }

    fn root(&self) -> &Path {
        self.root.path()
    }

    /// Extends a PCR, as firmware and boot loader do.
    fn extend(&self, index: u8, digest: &[u8; 32]) {
        let device = self.root().join("dev/tpmrm0");
        let started = std::time::Instant::now();
        let mut tpm = loop {
            match UnixStream::connect(&device) {
                Ok(tpm) => break tpm,
                Err(err) if started.elapsed() > PATIENCE => panic!("{}: {err}", device.display()),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        };
        // TPM2_PCR_Extend with an empty password: header, PCR, session, one SHA-256 digest.
        let mut command =
            [0x8002_u16.to_be_bytes(), [0, 0], 65_u16.to_be_bytes(), [0, 0], [1, 0x82]].concat();
        command.extend([0, 0, 0, index, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b]);
        command.extend(digest);
        tpm.write_all(&command).unwrap();
        let mut answer = [0; 19];
        tpm.read_exact(&mut answer).unwrap();
        assert_eq!(answer[6..10], [0; 4], "refused");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

async fn start_quoting(emulator: &Emulator) -> Running {
    let config = config("mlp", |settings| settings.debug = Some(false));
    let device = Device::find(emulator.root()).unwrap().unwrap();
    let parts = Parts::load(&config, Attester::Tpm(device), engine()).unwrap();
    let server = Server::assemble(config, parts).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    Running {
        address: server.address(),
        admin: server.admin_address(),
        app: server.app(),
        keys: server.keys(),
        stop,
        task: Mutex::new(Some(tokio::spawn(server.run(stopping)))),
    }
}

fn client(server: &Running, policy: &str) -> Client {
    let policy =
        Policy::new(Expectations::from_toml(policy, &mut |name| panic!("it names {name}")).unwrap()).unwrap();
    Client::new(&server.url(), policy, Options::default()).unwrap()
}

async fn refused(server: &Running, policy: &str) -> Verdict {
    let error: ClientError = client(server, policy).attest().await.unwrap_err();
    error.verdict().unwrap_or_else(|| panic!("{error}")).clone()
}

fn extended(digests: &[[u8; 32]]) -> [u8; 32] {
    digests.iter().fold([0; 32], |value, digest| {
        Sha256::new().chain_update(value).chain_update(digest).finalize().into()
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_client_asks_a_server_whose_boot_and_key_it_expects_and_no_other() {
    let Some(emulator) = Emulator::start() else { return };
    for (index, digest) in [(0, [1; 32]), (4, [2; 32]), (4, [3; 32]), (7, [4; 32]), (11, [5; 32])] {
        emulator.extend(index, &digest);
    }
    let pcr4 = hex(&extended(&[[2; 32], [3; 32]]));
    let zero = [0; 32];
    let pcrs = [extended(&[[1; 32]]), zero, extended(&[[2; 32], [3; 32]]), extended(&[[4; 32]]), zero, zero];
    let later = [extended(&[[5; 32]]), zero, zero];
    let enclave_hash = hex(&Sha256::digest([pcrs.concat(), later.concat()].concat()));
    let server = start_quoting(&emulator).await;

    // Nobody vouches for the attestation key, which might be software's; the verdict says which key it is.
    let hash = format!("enclave_hashes = [\"{enclave_hash}\"]\n");
    let verdict = refused(&server, &format!("{hash}[tpm]\npcrs.4 = [\"{pcr4}\"]")).await;
    assert!(verdict.is_undecided(), "{verdict}");
    let ak = verdict.check("ak").unwrap().found.clone();

    let good =
        format!("enclave_hashes = [\"{enclave_hash}\"]\n[tpm]\naks = [\"{ak}\"]\npcrs.4 = [\"{pcr4}\"]");
    let trusted = client(&server, &good);
    assert_eq!(trusted.attest().await.unwrap().enclave_hash().to_string(), enclave_hash);
    assert!(trusted.ready().await.unwrap());
    let metadata = trusted.metadata(None).await.unwrap();
    assert_eq!(metadata.name, "mlp");

    for (bad, check) in [
        (good.replace(&ak, &"0".repeat(64)), "ak"),
        (good.replace(&pcr4, &"0".repeat(64)), "pcrs"),
        (good.replace(&enclave_hash, &"0".repeat(64)), "enclave hash"),
    ] {
        let verdict = refused(&server, &bad).await;
        let failed: Vec<_> = verdict.failed().map(|check| (check.name, check.outcome)).collect();
        assert_eq!(failed, [(check, Outcome::Failed)], "{verdict}");
    }
}

//! What is left in a process's memory once it should be gone: the pages are read from outside and searched.

#![allow(clippy::print_stdout, reason = "says why a test is skipped")]

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use confonnx_attest::{Digest, Expectations, Policy};
use confonnx_client::{Client, Options};
use confonnx_model::encrypted::{self, ModelKey};
use sha2::{Digest as _, Sha256};

use crate::harness::{library, model};

/// A server in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_confonnx-server"))
            .env_clear()
            .arg("--onnxruntime-library")
            .arg(library())
            .args(["--address", "127.0.0.1", "--http-port", "0", "--admin-port", "0", "--debug"])
            .args(["--num-sessions", "1"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let url = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some((_, url)) = line.split_once("serving on ") {
                break url.trim().to_owned();
            }
        };
        std::thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        Self { child, url }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn count(&self, needles: &[&[u8]]) -> Option<Vec<usize>> {
        count_in(self.pid(), needles)
    }
}

/// How often each needle occurs in the memory that the process can write; `None` when this process may not read it.
pub(crate) fn count_in(pid: u32, needles: &[&[u8]]) -> Option<Vec<usize>> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut counts = vec![0; needles.len()];
    let mut read = 0_u64;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, flags) = (fields.next()?, fields.next()?);
        if !flags.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut region = vec![0; usize::try_from(end - start).ok()?];
        // Some special mappings cannot be read.
        if memory.read_exact_at(&mut region, start).is_err() {
            continue;
        }
        read += end - start;
        for (count, needle) in counts.iter_mut().zip(needles) {
            *count += region.windows(needle.len()).filter(|window| window == needle).count();
        }
    }
    assert!(read > 1 << 20, "only {read} bytes of memory could be read");
    Some(counts)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
async fn neither_the_models_key_nor_its_file_stays_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mlp.onnx.age");
    let key = ModelKey::generate().unwrap();
    encrypted::encrypt(&key, File::open(model("mlp")).unwrap(), File::create(&path).unwrap()).unwrap();
    let server = Server::start(&["--use-model-key-provisioning", "--model-path", path.to_str().unwrap()]);
    let policy = Policy::new(Expectations::new().allow_debug(true)).unwrap();
    let client = Client::new(&server.url, policy, Options::default()).unwrap();
    client.provision_model_key(None, &key, None).await.unwrap();
    assert!(client.ready().await.unwrap());

    let text = key.expose();
    let secret = secret_bytes(&text);
    let mut onnx = Vec::new();
    File::open(model("mlp")).unwrap().read_to_end(&mut onnx).unwrap();
    // A piece of the file with the framing between two of its fields, which no loaded model has.
    let piece = &onnx[..48];
    // The hash of the encrypted file, which the claims have: shows that the search finds what is there.
    let claimed = client.attest().await.unwrap().claims().models[0].ciphertext_sha256.unwrap().0;
    let Some(found) = server.count(&[&claimed, text.as_bytes(), &text.as_bytes()[20..60], &secret, piece])
    else {
        assert!(std::env::var_os("CI").is_none(), "CI has to be able to read another process's memory");
        println!("skipped: this process may not read another's memory (it needs CAP_SYS_PTRACE)");
        return;
    };
    assert!(found[0] > 0, "the search finds nothing at all");
    assert_eq!(found[1..], [0, 0, 0, 0], "key text, part of it, key, file");
}

#[tokio::test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
async fn no_token_stays_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/jwt");
    let cases: serde_json::Value =
        serde_json::from_slice(&fs::read(vectors.join("cases.json")).unwrap()).unwrap();
    let jwt = |name: &str| {
        let case = cases.as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
        case["token"].as_str().unwrap().to_owned()
    };
    let opaque = "a-token-that-is-nowhere-else-1b9f";
    let hash = Digest(Sha256::digest(opaque).into());
    let path = folder.path().join("auth.toml");
    let text = format!(
        "[[caller]]\nname = \"a\"\ntoken_sha256 = \"{hash}\"\n[oidc]\nissuer = \"https://issuer.example/realms/lab\"\n\
         audience = \"confonnx\"\njwks_file = \"{}\"\n[[oidc.rule]]\n",
        vectors.join("keys.json").display()
    );
    fs::write(&path, text).unwrap();
    let audit = folder.path().join("audit");
    let server = Server::start(&[
        "--model-path",
        model("mlp").to_str().unwrap(),
        "--auth-file",
        path.to_str().unwrap(),
        "--audit-log",
        audit.to_str().unwrap(),
    ]);
    let ask = async |token: &str| {
        let policy = Policy::new(Expectations::new().allow_debug(true)).unwrap();
        let mut options = Options::default();
        options.auth_key = Some(token.into());
        let client = Client::new(&server.url, policy, options).unwrap();
        client.server_metadata().await.is_ok()
    };
    let (good, bad) = (jwt("never-expires"), jwt("hs256-keyed-with-the-modulus"));
    assert!(ask(opaque).await && ask(&good).await);
    assert!(!ask(&bad).await && !ask("another-that-is-not-known-7c2e").await);
    // The needles are the middles of the tokens: what is at either end of freed memory may be overwritten.
    let middle = |token: &str| token.as_bytes()[token.len() / 3..][..16].to_vec();
    let needles = [opaque, &good, &bad, "another-that-is-not-known-7c2e"].map(middle);
    let mut sought: Vec<&[u8]> = vec![&hash.0];
    sought.extend(needles.iter().map(Vec::as_slice));
    let Some(found) = server.count(&sought) else {
        assert!(std::env::var_os("CI").is_none(), "CI has to be able to read another process's memory");
        println!("skipped: this process may not read another's memory (it needs CAP_SYS_PTRACE)");
        return;
    };
    assert!(found[0] > 0, "the search finds nothing at all");
    assert_eq!(found[1..], [0, 0, 0, 0], "token, JWT, refused JWT, unknown token");
}

/// What the server read of a model is erased as soon as it is loaded. ONNX Runtime's own copies are freed without being
/// erased, as docs/guides/models.md says.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
async fn nothing_that_was_read_of_an_unloaded_model_stays_in_memory() {
    let repository = tempfile::tempdir().unwrap();
    let put = |name: &str, from: &Path, to: &str| {
        let folder = repository.path().join(name).join("1");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(from, folder.join(to)).unwrap();
    };
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits/digits.onnx");
    put("digits", &digits, "model.onnx");
    put("external", &model("external"), "model.onnx");
    put("external", &model("external").with_file_name("external.bin"), "external.bin");
    let flags = ["--model-control", "poll", "--repository-poll-interval", "1", "--model-repository"];
    let server = Server::start(&[&flags[..], &[repository.path().to_str().unwrap()]].concat());

    let onnx = fs::read(&digits).unwrap();
    // The file's first bytes, with the framing between its fields, as no loaded model has them.
    let hash = confonnx_model::model_hash(&digits).unwrap();
    // The hash, which the claims have, shows that the search finds what is there.
    let needles = [&hash[..], &onnx[..64]];
    let Some(loaded) = server.count(&needles) else {
        assert!(std::env::var_os("CI").is_none(), "CI has to be able to read another process's memory");
        println!("skipped: this process may not read another's memory (it needs CAP_SYS_PTRACE)");
        return;
    };
    fs::rename(repository.path().join("digits"), repository.path().join(".digits")).unwrap();
    let claimed = || async {
        let policy = Policy::new(Expectations::new().allow_debug(true)).unwrap();
        let client = Client::new(&server.url, policy, Options::default()).unwrap();
        client.attest().await.unwrap().claims().models.len()
    };
    while claimed().await != 1 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let unloaded = server.count(&needles).unwrap();
    assert!(loaded[0] > 0, "the search finds nothing at all");
    assert_eq!((loaded[1], unloaded[1]), (0, 0), "the file as it was read");
}

/// The 32 bytes that a key's text stands for.
fn secret_bytes(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";
    let data = &text["AGE-SECRET-KEY-1".len()..text.len() - 6];
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for c in data.chars() {
        bits = (bits << 5 | ALPHABET.find(c).unwrap() as u32) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    assert_eq!(bytes.len(), 32);
    bytes
}

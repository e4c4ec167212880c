//! Three replicas behind a real nginx, round robin: every request is answered rightly while replicas are killed, paused, cut off
//! and restarted through rollovers of their keys. Real processes, on one machine and by the TEE stand-in: clocks agree, and
//! evidence of other machines is not shown.

#![allow(clippy::print_stdout, reason = "prints what it counted, or why it is skipped")]

use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use confonnx_attest::{Digest, Expectations, ModelPin, Policy, Trusted};
use confonnx_client::{Client, Options};
use confonnx_protocol::Kem;
use confonnx_tensor::{DataType, Shape, Tensor};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::harness::*;

const ROLLOVER: u64 = 4;
const GRACE: u64 = 3;
const ROLLOVERS: usize = 4;
const CLIENTS: usize = 4;
/// How many requests are sent at least.
const REQUESTS: usize = 2000;

/// Ports that were free a moment ago, and below those that the system gives to whoever connects: a replica that was killed
/// finds its own free again.
fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Where to begin depends on the process, since others may run the same test.
    let first = std::process::id() as usize;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    [(); N].map(|()| {
        let candidates = std::iter::repeat_with(|| {
            let at = first.wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Relaxed)) % 12_000;
            20_000 + u16::try_from(at).unwrap()
        });
        candidates.take(12_000).find(is_free).expect("one of 12,000 ports is free")
    })
}

/// A server process that can be killed, paused and started again, reached by a forwarder that can be cut.
struct Replica {
    program: PathBuf,
    flags: Vec<String>,
    /// The port on which the server itself listens.
    port: u16,
    child: Mutex<Option<Child>>,
    forwarder: Arc<Forwarder>,
    log: Arc<Mutex<String>>,
}

impl Replica {
    fn new(program: &Path, port: u16, forwarder: Arc<Forwarder>, peers: &str, bootstrap: bool) -> Self {
        let flags = [
            format!("--onnxruntime-library={}", library().display()),
            format!("--model-path={}", model("external").display()),
            "--address=127.0.0.1".into(),
            format!("--http-port={port}"),
            "--admin-port=0".into(),
            "--debug".into(),
            "--num-sessions=1".into(),
            "--threads-per-session=1".into(),
            "--key-provider=peer".into(),
            format!("--peers={peers}"),
            format!("--peer-bootstrap={bootstrap}"),
            format!("--key-rollover-interval={ROLLOVER}"),
            format!("--key-grace={GRACE}"),
            "--key-sync-interval=5".into(),
            "--key-error-retry-interval=1".into(),
        ];
        let program = program.to_owned();
        Self { program, flags: flags.into(), port, child: Mutex::new(None), forwarder, log: Arc::default() }
    }

    fn start(&self) {
        let mut child = Command::new(&self.program)
            .env_clear()
            .args(&self.flags)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (mut lines, log) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&self.log));
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).unwrap_or(0) > 0 {
                log.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        *self.child.lock().unwrap() = Some(child);
    }

    /// Status of the server's attestation, asked for directly or through the forwarder.
    fn status(&self) -> Option<u16> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let request =
            "GET /.well-known/confonnx/attestation HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.split(' ').nth(1)?.parse().ok()
    }

    async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.status() != Some(200) {
            assert!(Instant::now() < deadline, "not ready: {}", self.log.lock().unwrap());
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap();
        kill_process(Pid::from_child(child.as_ref().unwrap()), signal).unwrap();
    }

    /// Ends the process by SIGKILL, and waits for its end.
    fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    async fn attest(&self) -> Trusted {
        let client = client(self.port);
        // The client shares its own proof and does not give it away, so the document is verified here.
        let nonce = confonnx_attest::Nonce(std::array::from_fn(|at| at as u8));
        let document = client.fetch_document(Some(&nonce)).await.unwrap();
        trust(&document, Some(&nonce)).unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Passes connections on to a replica, unless it is cut off.
struct Forwarder {
    port: u16,
    cut: AtomicBool,
    /// Both ends of each open connection.
    open: Mutex<HashMap<usize, [TcpStream; 2]>>,
}

impl Forwarder {
    fn start(to: u16) -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let forwarder = Arc::new(Self { port, cut: false.into(), open: Mutex::default() });
        let shared = Arc::clone(&forwarder);
        std::thread::spawn(move || {
            for (id, near) in listener.incoming().enumerate() {
                let near = near.unwrap();
                // While cut, or when nobody listens there, connections are dropped at once: a reset, as of a host that
                // is gone.
                let far = (!shared.cut.load(Relaxed)).then(|| TcpStream::connect((Ipv4Addr::LOCALHOST, to)));
                let Some(Ok(far)) = far else { continue };
                let ends = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                shared.open.lock().unwrap().insert(id, ends);
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
                {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                        let _ = from.shutdown(std::net::Shutdown::Both);
                        shared.open.lock().unwrap().remove(&id);
                    });
                }
            }
        });
        forwarder
    }

    fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Relaxed);
        for stream in self.open.lock().unwrap().values().flatten().filter(|_| cut) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

struct Nginx {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// Starts nginx; `None` when it is not installed.
    async fn start(upstreams: &[u16]) -> Option<Self> {
        let program =
            ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())?;
        let (folder, [port]) = (tempfile::tempdir().unwrap(), free_ports());
        let at = folder.path().display();
        let servers: String =
            upstreams.iter().map(|port| format!("server 127.0.0.1:{port} max_fails=0;")).collect();
        // The file that docs show, with this test's addresses: hosts that hang are to be noticed within its patience.
        let sample = include_str!("../../../../docs/samples/nginx.conf");
        let (before, rest) = sample.split_once("    server 10.0.0.1:8888 max_fails=0;").unwrap();
        let (_, after) = rest.split_once("    server 10.0.0.3:8888 max_fails=0;").unwrap();
        let after = after
            .replace("listen 8888;", &format!("listen 127.0.0.1:{port};"))
            .replace("proxy_read_timeout 30s;", "proxy_read_timeout 3s;");
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}/{name};"))
            .concat();
        let configuration = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log; events {{}}
             http {{
                 access_log off; {paths}
                 {before}{servers}{after}
             }}"
        );
        fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        let mut command = Command::new(program);
        command.args(["-p", &at.to_string(), "-c", &format!("{at}/nginx.conf")]);
        // As root nginx would change to a user who may not write there.
        if rustix::process::getuid().is_root() {
            command.args(["-g", "user root;"]);
        }
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        until(|| TcpStream::connect(address).is_ok()).await;
        Some(Self { child, port, _folder: folder })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn client(port: u16) -> Client {
    let hash = Digest(confonnx_model::model_hash(&model("external")).unwrap());
    let expected = Expectations::new().allow_debug(true).model_hash(ModelPin::from(hash));
    let mut options = Options::default();
    options.timeout = PATIENCE;
    // A request that is lost is counted, not sent again.
    options.retries = 0;
    Client::new(&format!("http://127.0.0.1:{port}"), Policy::new(expected).unwrap(), options).unwrap()
}

#[derive(Debug, Default)]
struct Counts {
    right: AtomicUsize,
    wrong: AtomicUsize,
    lost: Mutex<Vec<String>>,
    rollovers: AtomicUsize,
    attested_again: AtomicUsize,
}

/// Asks until `done`, each time with other numbers, for which the answer is known.
async fn ask(client: Client, first: usize, counts: Arc<Counts>, done: Arc<AtomicBool>) {
    for n in (first..).step_by(CLIENTS) {
        if done.load(Relaxed) {
            break;
        }
        let numbers = [0.0, 1.0, 2.0, 3.0].map(|offset: f32| n as f32 + offset);
        let bytes = |numbers: [f32; 4]| numbers.map(f32::to_le_bytes).concat();
        let input = Tensor::new(DataType::Fp32, Shape::new([4]).unwrap(), bytes(numbers)).unwrap();
        match client.infer(None, vec![("x".into(), input)], &[]).await {
            Ok(outputs) => {
                // The model adds 0, 1, 2, 3 to its input.
                let expected = [0, 1, 2, 3].map(|at| numbers[at] + at as f32);
                let right = outputs.len() == 1 && outputs[0].1.data() == bytes(expected);
                if right { &counts.right } else { &counts.wrong }.fetch_add(1, Relaxed);
            }
            Err(err) => counts.lost.lock().unwrap().push(err.to_string()),
        }
    }
    counts.rollovers.fetch_max(client.key_rollover_count() as usize, Relaxed);
    counts.attested_again.fetch_add(client.key_invalid_count() as usize, Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_survive_what_happens_to_replicas() {
    let ports: [u16; 3] = free_ports();
    let forwarders = ports.map(Forwarder::start);
    let peers =
        forwarders.each_ref().map(|forwarder| format!("http://127.0.0.1:{}", forwarder.port)).join(",");
    let Some(nginx) = Nginx::start(&forwarders.each_ref().map(|forwarder| forwarder.port)).await else {
        assert!(std::env::var_os("CI").is_none(), "nginx is not installed: .ci/run should have installed it");
        println!("skipped: nginx is not installed (Debian, Ubuntu: apt install nginx-light)");
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_confonnx-server"));
    let replica = |at: usize| Replica::new(program, ports[at], Arc::clone(&forwarders[at]), &peers, at == 0);
    let replicas = [0, 1, 2].map(replica);
    for replica in &replicas {
        replica.start();
    }
    for replica in &replicas {
        replica.ready().await;
    }
    let start = Instant::now();
    let first = replicas[0].attest().await;
    let group = first.claims().key_source.group;
    let old_key = key_of(&first);

    let (counts, done) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(ask(client(nginx.port), n, Arc::clone(&counts), Arc::clone(&done))))
        .collect();
    let mut kills = 0;
    loop {
        // A replica is killed, and comes back after others went on.
        replicas[1].kill();
        sleep(Duration::from_secs(1)).await;
        replicas[1].start();
        replicas[1].ready().await;
        // A replica is paused for longer than an epoch.
        replicas[2].signal(Signal::STOP);
        sleep(Duration::from_secs(ROLLOVER + 1)).await;
        replicas[2].signal(Signal::CONT);
        replicas[2].ready().await;
        // A replica is cut off from everybody.
        replicas[1].forwarder.set_cut(true);
        sleep(Duration::from_secs(1)).await;
        replicas[1].forwarder.set_cut(false);
        // The replica that may make a first secret is killed, and joins the group that there is.
        replicas[0].kill();
        replicas[0].start();
        replicas[0].ready().await;
        kills += 2;
        let made = counts.right.load(Relaxed);
        if made >= REQUESTS && start.elapsed().as_secs() > ROLLOVER * ROLLOVERS as u64 {
            break;
        }
    }
    done.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let (right, wrong) = (counts.right.load(Relaxed), counts.wrong.load(Relaxed));
    let lost = counts.lost.lock().unwrap().clone();
    let rollovers = start.elapsed().as_secs() / ROLLOVER;
    println!(
        "{} requests by {CLIENTS} clients through {rollovers} rollovers, {kills} kills: {right} answered rightly, {wrong} wrongly, \
         {} lost {lost:?}; one client renewed its key {} times, all together attested again {} times",
        right + wrong + lost.len(),
        lost.len(),
        counts.rollovers.load(Relaxed),
        counts.attested_again.load(Relaxed),
    );
    assert_eq!(wrong, 0);
    // At each kill every client may lose the one request that it has in flight.
    assert!(lost.len() <= kills * CLIENTS && right >= REQUESTS);
    assert!(counts.rollovers.load(Relaxed) >= ROLLOVERS);

    // There is one group to the end, whose members agree and none of which accepts a key of the beginning.
    for replica in &replicas {
        assert_eq!(replica.attest().await.claims().key_source.group, group);
        let (sealed, _) = seal(&old_key, &head("GET", "/v2"), b"");
        assert_eq!(post(replica.port, &sealed), "key-unknown");
    }

    // A program with one byte more at its end is another program, which may not join.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("confonnx-server");
    fs::copy(program, &other).unwrap();
    fs::OpenOptions::new().append(true).open(&other).unwrap().write_all(b"\0").unwrap();
    let [port] = free_ports();
    let joiner = Replica::new(&other, port, Forwarder::start(port), &peers, true);
    joiner.start();
    until(|| joiner.log.lock().unwrap().contains("cannot join the group")).await;
    assert!(joiner.log.lock().unwrap().contains("enclave hash: expected"));
    assert_eq!(joiner.status(), Some(503));
}

fn key_of(trusted: &Trusted) -> confonnx_protocol::client::SealingKey {
    let configs = confonnx_protocol::KeyConfig::parse_list(trusted.key_configs()).unwrap();
    let config = configs.into_iter().find(|config| config.kem() == Kem::XWing).unwrap();
    confonnx_protocol::client::SealingKey::new(config, trusted).unwrap()
}

/// The problem code with which a replica answers the sealed request.
fn post(port: u16, sealed: &[u8]) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let head = format!(
        "POST {GATEWAY} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {SEALED}\r\ncontent-length: {}\r\n\r\n",
        sealed.len()
    );
    stream.write_all(&[head.as_bytes(), sealed].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<serde_json::Value>(body).unwrap()["code"].as_str().unwrap().to_owned()
}

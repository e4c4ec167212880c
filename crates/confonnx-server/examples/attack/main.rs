//! `make attack`: hostile callers beside honest ones, over loopback, against a live server; then models whose processes lie
//! with each answer, as ones that have taken over their native library do; a second server with another library than the
//! clients know; a host that sets the clock; last, hostile callers of a language model (`tokens`).
//! Prints what the honest ones noticed: p99 beside the quiet one and, where the attackers' own work is a part of that, beside
//! a control in which they do the same to somebody else; bytes held against the budget, by how much this process grew
//! (callers and attackers are in it, too), and what was lost. Fails when something was lost, answered wrongly, or held
//! beyond the budget; when a lie was not told, or was believed; when a client accepts another library. Times are for whoever
//! reads them. Attackers have another address than honest callers. After the seconds, names of attacks: those alone.

#![allow(clippy::restriction, reason = "a tool for this repository, which may panic")]
#![expect(clippy::print_stdout, reason = "a program for people, who read what it prints")]

#[path = "../../tests/it/harness.rs"]
#[expect(dead_code, reason = "made for the tests, which need more of it")]
mod harness;

#[path = "../../../confonnx-engine/tests/it/liar/box_side.rs"]
mod liar;

mod tokens;

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use confonnx_attest::{Digest, Expectations, Policy, produce::Attester};
use confonnx_client::{Client, ClientError, DataType, Options, Shape, Tensor};
use confonnx_engine::{BoxLimits, Boxes, Engine, Library};
use confonnx_protocol::Kem;
use harness::*;
use hyper::Request;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Handle, Runtime},
    task::JoinSet,
    time::{sleep, timeout},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    Quiet,
    SlowSenders,
    Garbage,
    UnreadReplies,
    Mutated,
    UnknownKeys,
    UnknownResumptions,
    ChunkedGarbage,
    Connections,
    ChurnElsewhere,
    Churn,
    LyingLibrary,
    WrongLibrary,
    ClockJumps,
}

impl Attack {
    /// The same work of the attackers, who share the server's cores, without the server.
    fn control(self) -> Option<Self> {
        matches!(self, Self::Churn).then_some(Self::ChurnElsewhere)
    }
}

const ATTACKS: [Attack; 14] = [
    Attack::Quiet,
    Attack::SlowSenders,
    Attack::Garbage,
    Attack::UnreadReplies,
    Attack::Mutated,
    Attack::UnknownKeys,
    Attack::UnknownResumptions,
    Attack::ChunkedGarbage,
    Attack::Connections,
    Attack::ChurnElsewhere,
    Attack::Churn,
    Attack::LyingLibrary,
    Attack::WrongLibrary,
    Attack::ClockJumps,
];

/// What hostile callers saw.
struct Seen {
    /// How often each of the lies was told, and found to be one.
    lies: [AtomicUsize; LIES.len()],
    /// Answers of liars that were passed on, and calls that another library answered.
    believed: AtomicUsize,
    /// Clients that refused the other library.
    refused: AtomicUsize,
    /// Clients of the server that has another library.
    impostor: Client,
    /// A listener that closes whatever it accepts: what an attack costs that the server has no part in, as the attackers
    /// share its cores.
    elsewhere: SocketAddr,
    /// Connections that were opened and dropped.
    dropped: AtomicUsize,
}

impl Seen {
    /// Whether what was to be seen in `attack` was, for people, too.
    fn as_it_should(&self, attack: Attack) -> bool {
        let believed = self.believed.load(Relaxed);
        match attack {
            Attack::Churn | Attack::ChurnElsewhere => {
                println!("  connections opened and dropped: {}", self.dropped.swap(0, Relaxed));
                true
            }
            Attack::LyingLibrary => {
                let told: Vec<_> = self.lies.iter().map(|told| told.load(Relaxed)).collect();
                println!("  lies told: {told:?}, believed: {believed}");
                believed == 0 && told.iter().all(|times| *times > 0)
            }
            Attack::WrongLibrary => {
                let refused = self.refused.load(Relaxed);
                println!("  clients that refused it: {refused}, that called it: {believed}");
                believed == 0 && refused > 0
            }
            _ => true,
        }
    }
}

/// What honest callers noticed.
#[derive(Default)]
struct Noticed {
    took: Vec<Duration>,
    lost: usize,
}

fn main() -> ExitCode {
    if let Some(server) = std::env::var_os(BOX) {
        be_a_box(Path::new(&server));
        return ExitCode::SUCCESS;
    }
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    let serving = threads("serving");
    // Honest and hostile callers each have threads of their own: what is measured is the server, not this program.
    let calling = threads("calling");
    let attacking = threads("attacking");
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::Isolated(boxes(folder.path(), &library()));
    // The same code for the loader, and another file.
    let other = folder.path().join("libonnxruntime.so");
    fs::copy(library(), &other).expect("a library");
    fs::OpenOptions::new()
        .append(true)
        .open(&other)
        .and_then(|mut file| file.write_all(b"!"))
        .expect("a library");
    let other = Engine::Isolated(boxes(folder.path(), &other));
    let mut config = config("mlp", |settings| {
        settings.model_path = None;
        settings.model_repository = Some(repository(folder.path()));
        settings.max_request_bytes = Some(1 << 20);
        settings.max_held_bytes = Some(16 << 20);
        settings.max_queue = Some(32);
        settings.replay_capacity = Some(1 << 20);
        settings.max_connections = Some(64);
        settings.max_peer_percent = Some(50);
    });
    config.limits.request_timeout = Duration::from_secs(2);
    let source = Attester::insecure(Digest([7; 32]));
    let server = Arc::new(serving.block_on(start_by(config, source, &engine)));
    let elsewhere = serving.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let impostor = attacking.block_on(start_by(
        self::config("mlp", |_| {}),
        Attester::insecure(Digest([7; 32])),
        &other,
    ));
    let known = |url: &str| Client::new(url, known_library(&engine), Options::default()).expect("a client");
    // The policy that refuses the other one accepts this one.
    calling
        .block_on(known(&server.url()).server_metadata())
        .expect("the server has the library that is known");
    let seen = Arc::new(Seen {
        elsewhere: elsewhere.local_addr().expect("an address"),
        dropped: AtomicUsize::new(0),
        lies: Default::default(),
        believed: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        impostor: known(&impostor.url()),
    });
    serving.spawn(async move {
        loop {
            drop(elsewhere.accept().await);
        }
    });
    let (mut before, mut bad) = (Vec::new(), false);
    println!(
        "{:<18} {:>7} {:>9} {:>8} {:>10} {:>22} {:>9} {:>5}",
        "attack", "calls", "p99", "of quiet", "of control", "held of budget", "grown", "lost"
    );
    let begun = resident();
    let only: Vec<String> = std::env::args().skip(2).collect();
    let wanted = |attack: &Attack| only.is_empty() || only.contains(&format!("{attack:?}"));
    for attack in ATTACKS.into_iter().filter(|attack| matches!(attack, Attack::Quiet) || wanted(attack)) {
        let (noticed, held) =
            calling.block_on(phase(&server, &seen, attack, Duration::from_secs(seconds), attacking.handle()));
        let mut took = noticed.took;
        took.sort_unstable();
        let p99 = took.get(took.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        before.push((attack, p99));
        let ratio = |to: Option<Attack>| {
            let found = before.iter().find(|(before, _)| Some(*before) == to);
            found.map_or("-".into(), |(_, than)| {
                format!("{:.2}", p99.as_secs_f64() / than.as_secs_f64().max(1e-9))
            })
        };
        let (of_quiet, of_control) = (ratio(Some(Attack::Quiet)), ratio(attack.control()));
        let limit = server.app.budget().limit();
        bad |= noticed.lost > 0 || took.is_empty() || held > limit;
        println!(
            "{:<18} {:>7} {:>6.2} ms {of_quiet:>8} {of_control:>10} {held:>11} {limit:>10} {:>5} MiB {:>5}",
            format!("{attack:?}"),
            took.len(),
            p99.as_secs_f64() * 1e3,
            resident().saturating_sub(begun) >> 20,
            noticed.lost
        );
        bad |= !seen.as_it_should(attack);
    }
    let length = Duration::from_secs(seconds).div_f64(4.0);
    bad |= tokens::attack((&serving, &calling, &attacking), &engine, length, &only);
    impostor.stop.send_replace(true);
    server.stop.send_replace(true);
    serving.shutdown_background();
    calling.shutdown_background();
    attacking.shutdown_background();
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn threads(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().expect("threads")
}

/// A model that is what it says, and one for each lie, which its description names.
fn repository(folder: &Path) -> std::path::PathBuf {
    let repository = folder.join("models");
    let add = |name: &str, model: &[u8]| {
        let version = repository.join(name).join("1");
        fs::create_dir_all(&version).expect("a folder");
        fs::write(version.join("model.onnx"), model).expect("a model");
    };
    let read = |name: &str| fs::read(model(name)).expect("a model");
    add("mlp", &read("mlp"));
    for (number, lie) in LIES.iter().enumerate() {
        // ModelProto.doc_string, field 6.
        let description = described(lie);
        let field = [&[6 << 3 | 2, description.len() as u8], description.as_bytes()].concat();
        add(&format!("liar{number}"), &[read("identity_fp32"), field].concat());
    }
    repository
}

fn described(lie: &str) -> String {
    format!("the lie: {lie}")
}

/// What a client expects that knows the library of `engine`.
fn known_library(engine: &Engine) -> Policy {
    let mut expected = Expectations::new().allow_debug(true);
    expected.server.runtime_sha256 = vec![Digest(engine.sha256())];
    Policy::new(expected).expect("a policy")
}

/// Boxes of the program under test with that library, but for the models that are for liars.
fn boxes(folder: &Path, library: &Path) -> Boxes {
    let own = std::env::current_exe().expect("a program");
    let server = own.ancestors().nth(2).expect("its folder").join("confonnx-server");
    let program = folder.join("box");
    let script = format!("#!/bin/sh\nexec env {BOX}='{}' '{}' \"$@\"\n", server.display(), own.display());
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a script");
    let library = Library::read(library).expect("a library");
    let boxes = Boxes::new(program, library, BoxLimits { memory: 0, answer: 1 << 30 }).expect("boxes");
    // The one that was prepared declines, and has to be gone before a model is loaded.
    std::thread::sleep(Duration::from_millis(200));
    boxes
}

fn be_a_box(server: &Path) {
    let Some(model) = liar::peek() else { return liar::decline() };
    let told = LIES.into_iter().find(|lie| model.ends_with(described(lie).as_bytes()));
    if let Some(lie) = told {
        return liar::serve(|_| lie.into());
    }
    let error = Command::new(server).args(std::env::args_os().skip(1)).env_clear().exec();
    panic!("{}: {error}", server.display());
}

/// Set for a box: the program under test.
const BOX: &str = "CONFONNX_ATTACK_BOX";

const LIES: [&str; 9] = [
    "another job",
    "no head there",
    "an endless list",
    "no tensor there",
    "more bytes than its shape",
    "floods the control channel",
    "hangs up",
    "ends",
    "rings as often as it can and hangs up",
];

async fn phase(
    server: &Arc<Running>,
    seen: &Arc<Seen>,
    attack: Attack,
    length: Duration,
    attacking: &Handle,
) -> (Noticed, usize) {
    let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut hostile = JoinSet::new();
    for number in 0..16 {
        hostile.spawn_on(attacker(Arc::clone(server), Arc::clone(seen), attack, number), attacking);
    }
    let mut honest = JoinSet::new();
    for number in 0..4 {
        let (server, stop) = (Arc::clone(server), Arc::clone(&stop));
        if matches!(attack, Attack::ClockJumps) {
            honest.spawn(client(server, stop));
        } else {
            honest.spawn(caller(server, stop, number));
        }
    }
    let (begun, end) = (Instant::now(), Instant::now() + length);
    while Instant::now() < end {
        most.fetch_max(server.app.budget().held(), Relaxed);
        if matches!(attack, Attack::ClockJumps) {
            // Ahead by more than requests may be, and back again.
            let jumped = begun.elapsed().as_millis() / 200 % 2 == 1;
            confonnx_server::clock::set_ahead(if jumped { 1000 } else { 0 });
        }
        sleep(Duration::from_millis(2)).await;
    }
    // Whoever comes after this has the true time.
    confonnx_server::clock::set_ahead(0);
    stop.store(true, Relaxed);
    let mut all = Noticed::default();
    for Noticed { took, lost } in honest.join_all().await {
        all.took.extend(took);
        all.lost += lost;
    }
    hostile.shutdown().await;
    (all, most.load(Relaxed))
}

/// Asks again and again; a server that is full is asked again a moment later, as clients do.
async fn caller(server: Arc<Running>, stop: Arc<AtomicBool>, number: u8) -> Noticed {
    let body = br#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;
    let mut noticed = Noticed::default();
    let key = server.key(Kem::X25519).await;
    while !stop.load(Relaxed) {
        let begun = Instant::now();
        let mut answered = false;
        for _ in 0..20 {
            let (sealed, opener) = seal(&key, &head("POST", "/v2/models/mlp/infer"), body);
            let stream = connect_from(10 + number, server.address).await.expect("a connection");
            let request = Request::post(GATEWAY).header("content-type", SEALED);
            let response = send_over(stream, request, sealed.into()).await;
            if response.status() == 200 {
                answered = Answer::open(response, opener).head.status == 200;
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        if answered {
            noticed.took.push(begun.elapsed());
        } else {
            noticed.lost += 1;
        }
        // Nobody honest opens more connections than the server takes from one address.
        sleep(Duration::from_millis(4)).await;
    }
    noticed
}

/// As [`caller`], by the published client, which learns of the server's clock.
async fn client(server: Arc<Running>, stop: Arc<AtomicBool>) -> Noticed {
    let mut noticed = Noticed::default();
    let client = server.client(Options::default());
    let bytes: Vec<u8> = [1_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    while !stop.load(Relaxed) {
        let tensor = Tensor::new(DataType::Fp32, Shape::new([1, 4]).expect("a shape"), bytes.clone());
        let begun = Instant::now();
        match client.infer(Some("mlp"), vec![("x".into(), tensor.expect("a tensor"))], &[]).await {
            Ok(_) => noticed.took.push(begun.elapsed()),
            Err(error) => {
                println!("lost: {error}");
                noticed.lost += 1;
            }
        }
    }
    noticed
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

/// From an address of the attackers' own.
async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    connect_from(2, to).await
}

async fn connect_from(host: u8, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // No port waits for a minute after its connection: there would soon be none, and looking for one would be the attack.
    socket.set_zero_linger()?;
    socket.bind(([127, 0, 0, host], 0).into())?;
    socket.connect(to).await
}

async fn attacker(server: Arc<Running>, seen: Arc<Seen>, attack: Attack, number: usize) {
    let mut liar = number;
    let key = server.key(Kem::X25519).await;
    let sealed = || seal(&key, &head("GET", "/v2"), b"").0;
    let post = |len: usize| {
        format!(
            "POST {GATEWAY} HTTP/1.1\r\nhost: x\r\ncontent-type: {SEALED}\r\ncontent-length: {len}\r\n\r\n"
        )
    };
    let to = if matches!(attack, Attack::ChurnElsewhere) { seen.elsewhere } else { server.address };
    loop {
        if matches!(attack, Attack::Quiet | Attack::ClockJumps) {
            return;
        }
        let Ok(mut stream) = connect(to).await else { continue };
        let sent = async {
            match attack {
                Attack::Quiet | Attack::ClockJumps => {}
                Attack::Connections => {
                    // As many as it gets, and nothing on them.
                    let mut held = Vec::new();
                    while held.len() < 64 {
                        held.push(connect(to).await?);
                    }
                    sleep(PATIENCE).await;
                }
                Attack::SlowSenders => {
                    let sealed = sealed();
                    stream.write_all(post(17 << 10).as_bytes()).await?;
                    for byte in sealed.chunks(1) {
                        stream.write_all(byte).await?;
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                Attack::Garbage => {
                    let mut junk = sealed();
                    junk.resize(1 << 20, 0x5a);
                    stream.write_all(post(junk.len()).as_bytes()).await?;
                    stream.write_all(&junk).await?;
                    answered(&mut stream).await?;
                }
                Attack::UnreadReplies => {
                    let ask = format!("GET {ATTESTATION} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(64);
                    loop {
                        stream.write_all(ask.as_bytes()).await?;
                    }
                }
                Attack::Mutated => {
                    for at in 0..64 {
                        let mut sealed = sealed();
                        let at = (at * 9) % sealed.len();
                        sealed[at] ^= 1 << (at % 8);
                        stream.write_all(post(sealed.len()).as_bytes()).await?;
                        stream.write_all(&sealed).await?;
                        answered(&mut stream).await?;
                    }
                }
                Attack::ChunkedGarbage => {
                    let mut junk = sealed();
                    junk.resize(1 << 20, 0x5a);
                    let head = post(junk.len()).replace(SEALED, "message/ohttp-chunked-req");
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(&junk).await?;
                    answered(&mut stream).await?;
                }
                Attack::UnknownResumptions => {
                    let head = post(1 << 20).replace(SEALED, "message/confonnx-session-req");
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(&sealed()).await?;
                    answered(&mut stream).await?;
                }
                Attack::Churn | Attack::ChurnElsewhere => {
                    seen.dropped.fetch_add(1, Relaxed);
                }
                Attack::LyingLibrary => {
                    liar = (liar + 1) % LIES.len();
                    let ask = head("POST", &format!("/v2/models/liar{liar}/infer"));
                    let body =
                        br#"{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}"#;
                    let (sealed, opener) = seal(&key, &ask, body);
                    let request = Request::post(GATEWAY).header("content-type", SEALED);
                    let response = send_over(stream, request, sealed.into()).await;
                    // In its own words the server says that it is full.
                    if response.headers()["content-type"] == "message/ohttp-res" {
                        let answer = Answer::open(response, opener);
                        match answer.head.status {
                            200 => seen.believed.fetch_add(1, Relaxed),
                            _ if answer.error().1 == "inference-crashed" => {
                                seen.lies[liar].fetch_add(1, Relaxed)
                            }
                            _ => 0,
                        };
                    }
                }
                Attack::WrongLibrary => {
                    drop(stream);
                    match seen.impostor.server_metadata().await {
                        Err(ClientError::NotTrusted(err))
                            if err.verdict.failed().all(|check| check.name == "runtime") =>
                        {
                            seen.refused.fetch_add(1, Relaxed)
                        }
                        Ok(_) => seen.believed.fetch_add(1, Relaxed),
                        Err(err) => panic!("the other library: {err}"),
                    };
                    sleep(Duration::from_millis(20)).await;
                }
                Attack::UnknownKeys => {
                    let mut sealed = sealed();
                    sealed[0] = !sealed[0];
                    stream.write_all(post(1 << 20).as_bytes()).await?;
                    stream.write_all(&sealed).await?;
                    answered(&mut stream).await?;
                }
            }
            std::io::Result::Ok(())
        };
        // The server hangs up, as it should.
        let _ = timeout(PATIENCE, sent).await;
    }
}

/// Waits for the beginning of an answer.
async fn answered(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    match stream.read(&mut [0; 2048]).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

//! Members of a group whose host sets the clock: what the TEE's vendor has stated once is a time before which it is not. The
//! clock is one for the whole process, so what sets it runs in one of its own.

use std::{process::Command, sync::Arc, time::Duration};

use confonnx_attest::{Evidence, Nonce, Tee, UnixTime, produce::Attester};
use confonnx_server::{
    clock::{self, set_ahead},
    config::Bootstrap,
    evidence::Source,
    group::{CHALLENGE_PATH, JOIN_PATH},
};

use super::{
    harness::*,
    peers::{PROGRAM, Place, document_by, joining, joining_ring, trouble},
};

/// By how much the host sets its clock forward, and back again.
const AHEAD: u32 = 1000;

/// What a vendor stated: from when, and until when it counts.
type Stated = (UnixTime, UnixTime);

fn evidence(data: &[u8; 64], stated: Stated) -> Evidence {
    let Evidence::Insecure(mut report) = Attester::insecure(PROGRAM).evidence(data).unwrap() else {
        panic!("evidence of the stand-in");
    };
    report.validity = Some(stated);
    Evidence::Insecure(report)
}

/// A TEE's device: `ask` is told how often it was asked before, and says what the vendor has stated.
fn source(mut ask: impl FnMut(usize) -> Stated + Send + 'static) -> Source {
    let mut asked = 0;
    Source {
        tee: Tee::Insecure,
        evidence: Box::new(move |data| {
            asked += 1;
            Ok(evidence(data, ask(asked - 1)))
        }),
        machine_key: None,
        interval: Duration::ZERO,
    }
}

async fn server(place: &Place, bootstrap: Bootstrap, source: Source) -> Running {
    start_from(config("mlp", |settings| place.settings(settings, bootstrap)), source).await
}

fn run(name: &str) {
    let test = format!("peer_clock::{name}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{:?}", output.stderr);
}

#[test]
fn who_joins_takes_no_word_that_had_ended() {
    run("a_joiner_on_a_host_that_sets_the_clock");
}

#[test]
fn nobody_joins_with_a_word_that_had_ended() {
    run("a_member_on_a_host_that_sets_the_clock");
}

/// What the vendor stated, as of the time at which a test begins.
struct Words {
    now: UnixTime,
}

impl Words {
    fn at(&self, from: i64, until: i64) -> Stated {
        let at = |seconds: i64| UnixTime(self.now.0.saturating_add_signed(seconds));
        (at(from), at(until))
    }

    /// The device of a joiner whose host sets the clock forward just when the joiner looks at its own evidence, and
    /// whose vendor had stated that by then.
    fn of_joiner(self: &Arc<Self>) -> Source {
        let words = Arc::clone(self);
        source(move |asked| {
            if asked == OWN {
                set_ahead(AHEAD);
                return words.at(900, 100_000);
            }
            words.at(-100, 100_000)
        })
    }

    /// The device of a member whose document the joiner asks for; then the clock is set back.
    fn of_member(self: &Arc<Self>, until: i64) -> Source {
        let words = Arc::clone(self);
        source(move |_| {
            set_ahead(0);
            words.at(-100, until)
        })
    }
}

/// The number of the quote that a server makes of itself before it looks for others; the first one is made at its
/// start.
const OWN: usize = 1;

#[tokio::test]
#[ignore = "the other side of a test here, in a process of its own"]
async fn a_joiner_on_a_host_that_sets_the_clock() {
    let (place, words) = (Place::new(), Arc::new(Words { now: clock::now() }));
    let member = server(&place, Bootstrap::Always, words.of_member(500)).await;
    until(|| member.keys.are_there()).await;
    place.list(&[&member]);
    // By the clock the vendor's word for the member still counts; it had ended when that for the joiner was stated.
    let joiner = server(&place, Bootstrap::Never, words.of_joiner()).await;
    let why = trouble(&joiner).await;
    assert!(why.contains("validity: expected valid at"), "{why}");
    assert!(!joiner.keys.are_there());
}

#[tokio::test]
#[ignore = "the other side of a test here, in a process of its own"]
async fn a_member_on_a_host_that_sets_the_clock() {
    let (place, words) = (Place::new(), Arc::new(Words { now: clock::now() }));
    let first = server(&place, Bootstrap::Always, words.of_member(100_000)).await;
    until(|| first.keys.are_there()).await;
    place.list(&[&first]);
    let member = server(&place, Bootstrap::Never, words.of_joiner()).await;
    until(|| member.keys.are_there()).await;
    assert!(clock::now().0 < words.now.0 + 500, "the clock is back");

    let (claims, ring) = (joining(&member.keys.published().claims), joining_ring());
    let join = async |stated: Stated| {
        let nonce = member.ask(&head("POST", CHALLENGE_PATH), b"").await.body;
        let document = document_by(
            |data| evidence(data, stated),
            Nonce(nonce.clone().try_into().unwrap()),
            &claims,
            &ring,
        );
        member.ask(&head("POST", JOIN_PATH), &[nonce, document].concat()).await
    };
    let late = join(words.at(-100, 500)).await;
    assert_eq!(late.head.status, 403, "{}", String::from_utf8_lossy(&late.body));
    assert!(String::from_utf8_lossy(&late.body).contains("validity"));
    assert_eq!(join(words.at(-100, 100_000)).await.head.status, 200);
}

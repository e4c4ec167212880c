//! A box that lies. It speaks the protocol from its description, as somebody who took over a box would, not by the
//! engine's code.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::Ordering::SeqCst,
};

use confonnx_device::Window;
use rustix::{
    io::{pread, pwrite},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg,
        sendmsg,
    },
    thread::futex,
};

/// Runs as a box, and tells the `lie` that its model names until it is ended.
pub(crate) fn serve(lie: impl FnOnce(Vec<u8>) -> String) {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let control = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut heard = hear(&control, RecvFlags::empty());
    if heard.0[0] == PREPARE {
        tell(&control, [HELD, 0, 0, 0, 0]);
        heard = hear(&control, RecvFlags::empty());
    }
    let ([_, _order, model_len, ..], fds) = heard;
    let report = &fds[1];
    let lie = lie(model(&fds, model_len));
    let facts = facts();
    pwrite(report, &facts, 0).unwrap();
    let len = facts.len() as u64;
    match lie.as_str() {
        "facts of 2^60 bytes" => tell(&control, [LOADED, 1 << 60, 0, 0, 0]),
        "garbled facts" => tell(&control, [LOADED, len - 1, 0, 0, 0]),
        "no facts" => tell(&control, [9, len, 0, 0, 0]),
        "refuses with 2^60 bytes" => tell(&control, [REFUSED, 1 << 60, 0, 0, 0]),
        "loads and ends" => return,
        _ => tell(&control, [LOADED, len, 0, 0, 0]),
    }
    let mut lanes = Vec::new();
    loop {
        let ([kind, ..], fds) = hear(&control, RecvFlags::empty());
        if kind == BEGIN {
            break;
        }
        assert_eq!(kind, LANE);
        let window = Window::new(&fds[0], 64 << 10).unwrap();
        let [file, bell] = <[OwnedFd; 2]>::try_from(fds).unwrap();
        lanes.push((0, Lane { window, file, bell }));
    }
    tell(&control, [HELD, 0, 0, 0, 0]);
    loop {
        let knocks = lanes[0].1.window.word(48).unwrap().load(SeqCst);
        for (last, lane) in &mut lanes {
            let job = lane.window.word(0).unwrap().load(SeqCst);
            if job != *last {
                *last = job;
                lane.begin(&lie, job);
                lane.answer(&lie, job, &control);
            }
        }
        lanes[0].1.rest(knocks);
    }
}

/// Says that a box works here, and ends: the next one knows which model it is for.
#[allow(dead_code, reason = "for a box that is another's half the time")]
pub(crate) fn decline() {
    let control = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    hear(&control, RecvFlags::empty());
    tell(&control, [HELD, 0, 0, 0, 0]);
}

/// The model that this process was started to load; none if it was started before there was one. The order can still be read
/// afterwards.
#[allow(dead_code, reason = "for a box that is another's half the time")]
pub(crate) fn peek() -> Option<Vec<u8>> {
    let ([kind, _order, model_len, ..], fds) = hear(std::io::stdin(), RecvFlags::PEEK);
    (kind != PREPARE).then(|| model(&fds, model_len))
}

fn model(fds: &[OwnedFd], len: u64) -> Vec<u8> {
    let mut model = vec![0; usize::try_from(len).unwrap()];
    pread(&fds[3], &mut model, 0).unwrap();
    model
}

struct Lane {
    window: Window,
    file: OwnedFd,
    bell: OwnedFd,
}

impl Lane {
    fn rest(&self, knocks: u32) {
        self.window.word(112).unwrap().store(1, SeqCst);
        let _ = futex::wait(self.window.word(48).unwrap(), futex::Flags::empty(), knocks, None);
        self.window.word(112).unwrap().store(0, SeqCst);
    }

    fn begin(&self, lie: &str, job: u32) {
        if !lie.ends_with("begins nothing") {
            self.window.word(116).unwrap().store(job, SeqCst);
        }
    }

    fn say(&self, job: u32, at: u64, len: u64) {
        assert!(self.window.set_numbers(72, [at, len, 0, 0, 0]));
        self.window.word(64).unwrap().store(job, SeqCst);
        self.ring(1);
    }

    fn ring(&self, times: u64) {
        let _ = rustix::io::write(&self.bell, &times.to_ne_bytes());
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        assert_eq!(pwrite(&self.file, bytes, at).unwrap(), bytes.len());
    }

    fn answer(&self, lie: &str, job: u32, control: &OwnedFd) {
        let honest = head(FP32, &[2], AT + 512..AT + 520);
        let mut said = honest.clone();
        let (mut number, mut at, mut len) = (job, AT, None);
        self.put(AT + 512, &[1, 2, 3, 4, 5, 6, 7, 8]);
        match lie {
            "another job" => number += 1,
            "no head there" => at = 1 << 50,
            "a head of 2^60 bytes" => len = Some(1 << 60),
            "an endless list" => said = [&[0][..], &u64::MAX.to_le_bytes()].concat(),
            "no tensor there" => said = head(FP32, &[2], 1 << 40..(1 << 40) + 8),
            "a tensor of 2^62 elements" => said = head(FP32, &[1 << 62], 0..u64::MAX),
            "more bytes than its shape" => said = head(FP32, &[2], AT + 512..AT + 524),
            "another type" => said = head(FP32 + 1, &[2], AT + 512..AT + 528),
            "two tensors" => said = [&[0][..], &2_u64.to_le_bytes(), &honest[9..], &honest[9..]].concat(),
            "no tensor" => said = [&[0][..], &0_u64.to_le_bytes()].concat(),
            "cut off" => len = Some(honest.len() as u64 - 1),
            "ends" => std::process::exit(0),
            "hangs up" => {
                rustix::net::shutdown(control, rustix::net::Shutdown::Both).unwrap();
                wait_for_the_end();
            }
            "floods the control channel" => loop {
                tell(control, [7; 5]);
            },
            "an unknown outcome" => said[0] = 77,
            "terabytes" => {
                rustix::fs::ftruncate(&self.file, 1 << 43).unwrap();
                said = head(FP32, &[1 << 40], 0..1 << 42);
            }
            "says nothing" | "says nothing and begins nothing" => wait_for_the_end(),
            "says nothing and hangs up" => {
                rustix::net::shutdown(control, rustix::net::Shutdown::Write).unwrap();
                wait_for_the_end();
            }
            "rings and says nothing" => loop {
                self.ring(1);
            },
            // The bell's counter is full; the key holder notices all the same that the box hangs up.
            "rings as often as it can and hangs up" => {
                self.ring(u64::MAX - 1);
                rustix::net::shutdown(control, rustix::net::Shutdown::Write).unwrap();
                wait_for_the_end();
            }
            "changes its mind" => {
                let other = head(FP32, &[1], AT + 512..AT + 516);
                self.put(AT, &honest);
                self.say(job, AT, honest.len() as u64);
                while self.window.word(0).unwrap().load(SeqCst) == job {
                    self.put(AT, &other);
                    self.put(AT, &honest);
                }
                return;
            }
            _ => {}
        }
        self.put(AT, &said);
        self.say(number, at, len.unwrap_or(said.len() as u64));
    }
}

fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

/// Where the answer lies in the window.
const AT: u64 = 32 << 10;

const FP32: u8 = 11;

fn head(dtype: u8, dims: &[u64], bytes: std::ops::Range<u64>) -> Vec<u8> {
    let mut head = vec![0];
    let number = |number: u64, head: &mut Vec<u8>| head.extend(number.to_le_bytes());
    number(1, &mut head);
    head.push(dtype);
    number(dims.len() as u64, &mut head);
    dims.iter().for_each(|dim| number(*dim, &mut head));
    number(bytes.start, &mut head);
    number(bytes.end, &mut head);
    head
}

/// The facts of a model with one input and one output, `x` and `y`, which are vectors of any length.
fn facts() -> Vec<u8> {
    let mut facts = Vec::new();
    let number = |number: u64, facts: &mut Vec<u8>| facts.extend(number.to_le_bytes());
    for name in ["x", "", "y"] {
        if name.is_empty() {
            number(0, &mut facts);
            continue;
        }
        number(1, &mut facts);
        number(1, &mut facts);
        facts.extend(name.bytes());
        facts.push(FP32);
        number(1, &mut facts);
        facts.extend((-1_i64).to_le_bytes());
    }
    number(0, &mut facts);
    facts.push(0);
    number(1, &mut facts);
    facts
}

const PREPARE: u64 = 1;
const LANE: u64 = 3;
const BEGIN: u64 = 4;
const LOADED: u64 = 1;
const REFUSED: u64 = 2;
const HELD: u64 = 3;

fn tell(socket: &OwnedFd, message: [u64; 5]) {
    let bytes = message.map(u64::to_le_bytes).concat();
    let sent =
        sendmsg(socket, &[IoSlice::new(&bytes)], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
    if sent.is_err() {
        std::process::exit(0);
    }
}

fn hear(socket: impl AsFd, how: RecvFlags) -> ([u64; 5], Vec<OwnedFd>) {
    let mut bytes = [0; 40];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, how | RecvFlags::CMSG_CLOEXEC)
            .unwrap();
    if got.bytes == 0 {
        std::process::exit(0);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let words = std::array::from_fn(|index| u64::from_le_bytes(bytes[index * 8..][..8].try_into().unwrap()));
    (words, fds)
}

//! HTTP/1.1 with keep-alive over one blocking connection: the least that a load generator can spend on a request.

use std::{
    io::{IoSlice, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

/// A connection for one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How many bytes of the buffer were received.
    filled: usize,
}

/// An answer; its body lies in the connection's buffer until the next question.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// In an answer of the Open Inference Protocol: how many bytes of the body are JSON.
    pub(crate) json_len: Option<usize>,
    pub(crate) body: &'a [u8],
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    status: u16,
    body: usize,
    json_len: Option<usize>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: vec![0; MAX_HEAD], filled: 0 })
    }

    /// Sends `parts`, a whole request, and reads its answer.
    pub(crate) fn exchange(&mut self, parts: &[&[u8]]) -> anyhow::Result<Answer<'_>> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let sent = self.stream.write_vectored(left)?;
            ensure!(sent > 0, "the connection took no more");
            IoSlice::advance_slices(&mut left, sent);
        }
        self.filled = 0;
        let start = loop {
            self.read()?;
            let received = &self.buffer[..self.filled];
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(self.filled < MAX_HEAD, "an answer's head is longer than {MAX_HEAD} bytes");
        };
        let head = parse(&self.buffer[..start])?;
        let end = start + head.body;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        while self.filled < end {
            self.read()?;
        }
        Ok(Answer { status: head.status, json_len: head.json_len, body: &self.buffer[start..end] })
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let found = self.stream.read(&mut self.buffer[self.filled..]).context("no answer")?;
        ensure!(found > 0, "the server closed the connection before it answered");
        self.filled += found;
        Ok(())
    }
}

/// The head of a `POST` to `path`, with `fields` and a body of `len` bytes.
pub(crate) fn post(path: &str, fields: &[(&str, &str)], len: usize) -> Vec<u8> {
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len}\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// A whole `GET`.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

fn parse(head: &[u8]) -> anyhow::Result<Head> {
    let text = std::str::from_utf8(head).context("an answer's head")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let (mut body, mut json_len) = (None, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            body = Some(value.trim().parse()?);
        } else if name.eq_ignore_ascii_case("inference-header-content-length") {
            json_len = Some(value.trim().parse()?);
        }
    }
    let (Some(status), Some(body)) = (status, body) else {
        bail!("expected an HTTP/1.1 answer with content-length, found:\n{text}")
    };
    Ok(Head { status, body, json_len })
}

/// Answers every request to its address with the same bytes and does nothing else, so that what is measured is the
/// generator's cost. Ends with the process.
pub(crate) fn echo(answer: &[u8]) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut answer_bytes =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len()).into_bytes();
    answer_bytes.extend_from_slice(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer_bytes.clone();
            // The connection's thread ends when the client leaves, with an error or without.
            thread::spawn(move || echo_to(&stream, &answer));
        }
    });
    Ok(address)
}

fn echo_to(mut stream: &TcpStream, answer: &[u8]) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut received, mut buffer) = (Vec::new(), vec![0; 256 << 10]);
    loop {
        let wanted = received.windows(4).position(|window| window == b"\r\n\r\n").map(|end| {
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            let len = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            end + 4 + len.and_then(|len| len.parse().ok()).unwrap_or(0_usize)
        });
        if wanted.is_some_and(|wanted| received.len() >= wanted) {
            received.clear();
            stream.write_all(answer)?;
        }
        let found = stream.read(&mut buffer)?;
        ensure!(found > 0, "the client left");
        received.extend_from_slice(&buffer[..found]);
    }
}

const MAX_HEAD: usize = 16 << 10;
/// The most that an answer may take: longer than any model here with a queue before it.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 152\r\nInference-Header-Content-Length: 136\r\n\r\n";
        assert_eq!(parse(head).unwrap(), Head { status: 200, body: 152, json_len: Some(136) });
        let error = parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("expected an HTTP/1.1 answer with content-length"), "{error}");
    }

    #[test]
    fn a_connection_asks_again_and_again() {
        let answer = vec![7; 300_000];
        let mut connection = Connection::open(echo(&answer).unwrap()).unwrap();
        for len in [0, 1, 100_000] {
            let found = connection.exchange(&[&post("/", &[("a", "b")], len), &vec![0; len]]).unwrap();
            assert_eq!((found.status, found.json_len, found.body == answer), (200, None, true));
        }
    }
}

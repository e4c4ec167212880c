//! A vendor's service.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::evidence::{certificate, intel, list};

/// What the stand-in for a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Answers.
    Good,
    /// Answers with this status and `retry-after`.
    Status(u16, Option<&'static str>),
    /// Answers as a PCCS.
    Intel,
    /// Accepts and says nothing.
    Silent,
    /// Sends one byte after the other.
    Dripping,
    /// Closes before the end.
    Truncated,
    /// Does not stop sending.
    Endless,
    /// Answers with status 200 and a page for people, as captive portals do.
    SignIn,
    /// Gives the list for the certificate and the other way round.
    Swapped,
    /// Has a list that expired.
    Outdated,
    /// Closes at once.
    Reset,
}

pub(super) struct Service {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    mode: Mode,
    asked: Vec<String>,
}

impl Service {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { mode: Mode::Good, asked: Vec::new() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                // A client that hangs up is no event.
                tokio::spawn(async move { drop(answer(stream, &shared).await) });
            }
        });
        Self { url, state, task }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// The paths of the good answers it gave.
    pub(super) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    let is_list = path.ends_with("/crl");
    let mode = {
        let mut state = state.lock().unwrap();
        if matches!(state.mode, Mode::Good | Mode::Intel) {
            state.asked.push(path.clone());
        }
        state.mode
    };
    let ok = |body: Vec<u8>| (head(200, None, body.len()), body);
    let (head, body) = match mode {
        Mode::Good if is_list => ok(list(false)),
        Mode::Intel => {
            let (field, body) = intel(&path);
            let head = head(200, None, body.len());
            (head.replacen("\r\n", &format!("\r\n{field}"), 1), body)
        }
        Mode::Outdated if is_list => ok(list(true)),
        Mode::Swapped if !is_list => ok(list(false)),
        Mode::Good | Mode::Outdated | Mode::Swapped => ok(certificate()),
        Mode::SignIn => ok(b"<html>Welcome to the hotel</html>".to_vec()),
        Mode::Status(status, retry_after) => (head(status, retry_after, 0), Vec::new()),
        Mode::Truncated => (head(200, None, 4096), vec![0x30; 100]),
        Mode::Endless => (head(200, None, 1 << 30), vec![0x30; 1 << 20]),
        Mode::Dripping => {
            stream.write_all(head(200, None, 1 << 20).as_bytes()).await?;
            loop {
                stream.write_all(&[0x30]).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Mode::Silent => std::future::pending().await,
        Mode::Reset => return Ok(()),
    };
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

fn head(status: u16, retry_after: Option<&str>, length: usize) -> String {
    let retry_after = retry_after.map(|value| format!("retry-after: {value}\r\n")).unwrap_or_default();
    format!("HTTP/1.1 {status} X\r\n{retry_after}content-length: {length}\r\nconnection: close\r\n\r\n")
}

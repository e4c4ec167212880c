use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

mod page;
mod view;

use page::Page;
use view::{Look, Server};

/// Watch servers by their admin ports: rates, times, models, keys
///
/// The admin port says nothing of a request. It is not verified: what is shown is what a host says of its servers.
#[derive(Args)]
pub(crate) struct Top {
    /// Admin ports
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8889")]
    urls: Vec<String>,
    /// Seconds between looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    interval: f64,
    /// Look twice, print and end: for scripts
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(crate) fn run(self) -> Result<()> {
        let interval = Duration::try_from_secs_f64(self.interval)
            .ok()
            .filter(|interval| (LEAST..=MOST).contains(interval))
            .with_context(|| {
                format!("expected --interval from 0.1 to 3600 seconds, found {}", self.interval)
            })?;
        let mut servers: Vec<Server> = self.urls.iter().map(|url| Server::new(url)).collect();
        if self.once {
            look(&mut servers);
            thread::sleep(interval);
            look(&mut servers);
            return Ok(crate::print(&view::text(&servers, &now(interval), WIDTH))?);
        }
        anyhow::ensure!(
            std::io::stdout().is_terminal(),
            "expected a terminal, found none: --once prints what there is to see"
        );
        let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
        let ended = watch(&mut terminal, servers, interval);
        // The terminal is given back whatever happened.
        ratatui::restore();
        ended
    }
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    mut servers: Vec<Server>,
    interval: Duration,
) -> Result<()> {
    // The looks have a thread of their own, so that servers that do not answer keep no key waiting.
    let (asks, asked) = mpsc::channel::<()>();
    let (tells, told) = mpsc::channel();
    let urls: Vec<String> = servers.iter().map(|server| server.url.clone()).collect();
    thread::spawn(move || {
        while asked.recv().is_ok() {
            if tells.send(pages(&urls)).is_err() {
                return;
            }
        }
    });
    let mut due = Instant::now();
    let mut waiting = false;
    loop {
        if !waiting && Instant::now() >= due {
            waiting = asks.send(()).is_ok();
            due = Instant::now().checked_add(interval).unwrap_or(due);
        }
        match told.recv_timeout(TICK) {
            Ok(pages) => {
                waiting = false;
                for (server, page) in servers.iter_mut().zip(pages) {
                    server.take(page, Instant::now());
                }
                terminal.draw(|frame| view::draw(frame, &servers, &now(interval)))?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("nobody looks any more"),
        }
        while event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Char(' ') => due = Instant::now(),
                    _ => {}
                },
                Event::Resize(..) => {
                    terminal.draw(|frame| view::draw(frame, &servers, &now(interval)))?;
                }
                _ => {}
            }
        }
    }
}

fn look(servers: &mut [Server]) {
    let urls: Vec<String> = servers.iter().map(|server| server.url.clone()).collect();
    for (server, page) in servers.iter_mut().zip(pages(&urls)) {
        server.take(page, Instant::now());
    }
}

/// The pages of all servers, which are asked at once.
fn pages(urls: &[String]) -> Vec<Result<Page, String>> {
    thread::scope(|scope| {
        let asked: Vec<_> = urls.iter().map(|url| scope.spawn(move || Page::fetch(url, PATIENCE))).collect();
        let failed = |_| Err("the look at it failed".to_owned());
        asked.into_iter().map(|one| one.join().unwrap_or_else(failed)).collect()
    })
}

fn now(interval: Duration) -> Look {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Look { unix, interval }
}

const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3600);
/// The time that a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time that a key may wait.
const TICK: Duration = Duration::from_millis(50);
/// How many columns the printed table has.
const WIDTH: u16 = 120;

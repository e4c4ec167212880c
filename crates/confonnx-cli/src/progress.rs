//! How far a large transfer is, for a person at a terminal.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use confonnx_client::{Progress, Transfer};

/// A bar on standard error while a request or an answer of 1 MiB or more is on its way; `None` if nobody looks there.
pub(crate) fn bar() -> Option<Progress> {
    let bar = Bar::new()?;
    Some(Progress::new(move |Transfer { sending, done, total, .. }| bar.tell(sending, done, total)))
}

/// Bytes that are read, with a bar on standard error as for an answer.
pub(crate) struct Watched<R> {
    inner: R,
    bar: Option<Bar>,
    done: u64,
    total: Option<u64>,
}

impl<R> Watched<R> {
    /// `total` is how many bytes there will be, if that is known.
    pub(crate) fn new(inner: R, total: Option<u64>) -> Self {
        Self { inner, bar: Bar::new(), done: 0, total }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.done = self.done.saturating_add(length as u64);
        if let Some(bar) = &self.bar {
            bar.tell(false, self.done, self.total);
        }
        Ok(length)
    }
}

struct Bar {
    /// When the bar was last drawn, if it is there.
    drawn: Mutex<Option<Instant>>,
}

impl Bar {
    /// `None` if nobody looks at standard error.
    fn new() -> Option<Self> {
        let terminal =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        terminal.then(|| Self { drawn: Mutex::new(None) })
    }

    fn tell(&self, sending: bool, done: u64, total: Option<u64>) {
        let Some(total) = total.filter(|total| *total >= LARGE) else { return };
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let through = done >= total;
        if through && !sending {
            erase(&mut drawn);
        } else if through || drawn.is_none_or(|at| at.elapsed() >= PAUSE) {
            show(&format!("{CLEAR}{}", line(sending, done, total)));
            *drawn = Some(Instant::now());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        erase(self.drawn.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

fn erase(drawn: &mut Option<Instant>) {
    if drawn.take().is_some() {
        show(CLEAR);
    }
}

/// A bar such as `sending   [=======>            ]  38%  25.6 of 67.2 MB`.
fn line(sending: bool, done: u64, total: u64) -> String {
    let share = |of: usize| {
        let part = u128::from(done.min(total)).saturating_mul(of as u128);
        usize::try_from(part.checked_div(u128::from(total)).unwrap_or_default()).unwrap_or(of)
    };
    let full = share(WIDTH);
    let head = if full < WIDTH { ">" } else { "" };
    let bar = format!("{}{head}", "=".repeat(full));
    let what = match (sending, done >= total) {
        (true, false) => "sending",
        // The request is sent, and the model runs.
        (true, true) => "sent",
        (false, _) => "receiving",
    };
    let [done, total] = [done, total].map(|bytes| bytes as f64 / 1e6);
    format!("{what:9} [{bar:WIDTH$}] {:3}%  {done:.1} of {total:.1} MB", share(100))
}

fn show(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell when stderr is closed.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Returns to the beginning of the terminal's line and erases the line.
const CLEAR: &str = "\r\x1b[K";
const WIDTH: usize = 24;
const LARGE: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_far_it_is() {
        assert_eq!(line(true, 0, 2_000_000), "sending   [>                       ]   0%  0.0 of 2.0 MB");
        assert_eq!(
            line(false, 1_000_000, 2_000_000),
            "receiving [============>           ]  50%  1.0 of 2.0 MB"
        );
        assert_eq!(
            line(true, 2_000_000, 2_000_000),
            "sent      [========================] 100%  2.0 of 2.0 MB"
        );
        assert!(line(true, u64::MAX, u64::MAX).ends_with("] 100%  18446744073709.6 of 18446744073709.6 MB"));
    }
}

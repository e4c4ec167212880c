//! What there is to see.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};
use ratatui::{Terminal, buffer::Buffer};

use super::page::Page;

/// A server, and what it said the last two times.
pub(super) struct Server {
    pub(super) url: String,
    before: Option<(Page, Instant)>,
    now: Option<(Page, Instant)>,
    /// Why the server gave no page the last time.
    trouble: Option<String>,
}

/// A look at all servers: when, and how long since the last.
pub(super) struct Look {
    /// Seconds of Unix time.
    pub(super) unix: f64,
    pub(super) interval: Duration,
}

impl Server {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), before: None, now: None, trouble: None }
    }

    pub(super) fn take(&mut self, page: Result<Page, String>, at: Instant) {
        match page {
            Ok(page) => {
                self.before = self.now.take();
                self.now = Some((page, at));
                self.trouble = None;
            }
            // Numbers of before are of another time.
            Err(why) => (self.before, self.now, self.trouble) = (None, None, Some(why)),
        }
    }

    fn page(&self) -> Option<&Page> {
        self.now.as_ref().map(|(page, _)| page)
    }

    /// How fast a number grows; none before it was seen twice, or after its server was started anew.
    fn rate(&self, of: impl Fn(&Page) -> f64) -> Option<f64> {
        let ((before, then), (now, at)) = (self.before.as_ref()?, self.now.as_ref()?);
        let grown = of(now) - of(before);
        let seconds = at.checked_duration_since(*then)?.as_secs_f64();
        (grown >= 0.0 && seconds > 0.0).then(|| grown / seconds)
    }

    /// The time that a part of the requests since the last look took up to, by the bounds of the histogram's buckets.
    fn quantile(&self, stage: &str, part: f64) -> Option<f64> {
        let ((before, _), (now, _)) = (self.before.as_ref()?, self.now.as_ref()?);
        let (before, now) = (before.buckets(STAGES, ("stage", stage)), now.buckets(STAGES, ("stage", stage)));
        let since: Vec<(f64, f64)> =
            now.iter().zip(&before).map(|((bound, now), (_, before))| (*bound, now - before)).collect();
        let all = since.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        since.iter().find(|(_, count)| *count >= all * part).map(|(bound, _)| *bound)
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, servers: &[Server], look: &Look) {
    let troubles: Vec<Line<'_>> = servers.iter().filter_map(trouble).collect();
    let [head, table, why, models, outcomes] =
        Layout::vertical(heights(servers, frame.area().width)).areas(frame.area());
    let bad = servers.iter().filter(|server| !is_well(server)).count();
    let words = match bad {
        0 => Span::styled("all ready", Style::new().fg(Color::Green)),
        bad => {
            Span::styled(format!("{bad} not ready"), Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
        }
    };
    let many = if servers.len() == 1 { "1 server".into() } else { format!("{} servers", servers.len()) };
    let line = Line::from(vec![
        Span::styled("confonnx top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {many}, ")),
        words,
        Span::styled(
            format!("  every {} s, by what the hosts say  (q ends)", look.interval.as_secs_f64()),
            Style::new().add_modifier(Modifier::DIM),
        ),
    ]);
    frame.render_widget(Paragraph::new(line), head);
    frame.render_widget(of_servers(servers, look, table.width), table);
    frame.render_widget(Paragraph::new(troubles).wrap(Wrap { trim: true }), why);
    frame.render_widget(of_models(servers, models.width), models);
    draw_outcomes(frame, servers, outcomes);
}

/// Of the parts of the view, from top to bottom.
fn heights(servers: &[Server], width: u16) -> [Constraint; 5] {
    let lines = |lines: usize| u16::try_from(lines).unwrap_or(u16::MAX);
    // Broken at spaces, so a line may take one more than its length says.
    let of_trouble = |line: Line<'_>| match line.width().checked_div(usize::from(width)) {
        None | Some(0) => 1,
        Some(full) => full.saturating_add(2),
    };
    let all = servers.iter().filter_map(Server::page).map(|page| models(page).count()).sum::<usize>();
    [
        Constraint::Length(1),
        Constraint::Length(lines(servers.len().saturating_add(2))),
        Constraint::Length(lines(servers.iter().filter_map(trouble).map(of_trouble).sum())),
        Constraint::Length(lines(all.saturating_add(2))),
        Constraint::Min(8),
    ]
}

/// The same as text, without the space below.
pub(super) fn text(servers: &[Server], look: &Look, width: u16) -> String {
    let height = heights(servers, width).iter().fold(0_u16, |all, part| match part {
        Constraint::Length(lines) | Constraint::Min(lines) => all.saturating_add(*lines),
        _ => all,
    });
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(frame) = terminal.draw(|frame| draw(frame, servers, look));
    lines(frame.buffer).join("\n").trim_end().to_owned()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width.max(1));
    let line =
        |cells: &[ratatui::buffer::Cell]| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    buffer.content().chunks(width).map(|cells| line(cells).trim_end().to_owned()).collect()
}

/// Why a server is not ready, in a line of its own: it may be long.
fn trouble(server: &Server) -> Option<Line<'_>> {
    let why = match server.page() {
        Some(page) => page.trouble.as_deref()?,
        None => server.trouble.as_deref()?,
    };
    Some(Line::from(format!("{}: {why}", name(&server.url))).style(Style::new().fg(Color::Red)))
}

fn is_well(server: &Server) -> bool {
    server.page().is_some_and(|page| page.trouble.is_none())
}

fn of_servers<'s>(servers: &'s [Server], look: &Look, width: u16) -> Table<'s> {
    let columns = [
        Column::new("Server", longest(servers.iter().map(|server| name(&server.url))), 0),
        Column::new("State", 11, 0),
        Column::new("req/s", 8, 0),
        Column::new("p50", 7, 0),
        Column::new("p99", 7, 0),
        Column::new("run", 4, 1),
        Column::new("wait", 4, 1),
        Column::new("conn", 5, 3),
        Column::new("in", 8, 4),
        Column::new("out", 8, 5),
        Column::new("models", 6, 0),
        Column::new("key ends", 8, 1),
        Column::new("evidence", 8, 2),
    ];
    let row = |server: &'s Server| {
        let Some(page) = server.page() else {
            let word = if server.trouble.is_some() { "no answer" } else { "not asked" };
            return vec![Cell::new(name(&server.url)), state(word, false)];
        };
        let ready = page.trouble.as_deref();
        let after = |name: &str, sign: f64| {
            page.least(name).map_or("–".into(), |at| duration(sign * (at - look.unix)))
        };
        let rate = |name: &str| server.rate(|page| page.sum(name));
        let served = page.each("confonnx_model_ready", ["model", "version"]);
        let (ready_models, all) = served.fold((0_u32, 0_u32), |(ready, all), (_, value)| {
            (ready.saturating_add(u32::from(value > 0.0)), all.saturating_add(1))
        });
        vec![
            Cell::new(name(&server.url)),
            state(if ready.is_none() { "ready" } else { "not ready" }, ready.is_none()),
            number(rate("confonnx_requests_total").map(|rate| format!("{rate:.1}"))),
            number(server.quantile("infer", 0.5).map(time)),
            number(server.quantile("infer", 0.99).map(time)),
            number(Some(page.sum("confonnx_in_flight").to_string())),
            number(Some(page.sum("confonnx_queue_depth").to_string())),
            number(Some(page.sum("confonnx_connections").to_string())),
            number(rate("confonnx_received_bytes_total").map(bytes)),
            number(rate("confonnx_sent_bytes_total").map(bytes)),
            number(Some(format!("{ready_models}/{all}"))),
            number(Some(after("confonnx_key_expiry_timestamp_seconds", 1.0))),
            number(Some(after("confonnx_evidence_timestamp_seconds", -1.0))),
        ]
    };
    fitting(&columns, servers.iter().map(row), 2, width)
}

fn of_models(servers: &[Server], width: u16) -> Table<'_> {
    let pages = || servers.iter().filter_map(Server::page);
    let columns = [
        Column::new("Model", longest(pages().flat_map(|page| models(page).map(|(model, ..)| model))), 0),
        Column::new(
            "Version",
            longest(pages().flat_map(|page| models(page).map(|(_, version, _)| version))),
            0,
        ),
        Column::new("Server", longest(servers.iter().map(|server| name(&server.url))), 0),
        Column::new("State", 12, 0),
        Column::new("runs/s", 8, 0),
        Column::new("batched/s", 9, 1),
        Column::new("processes ended", 15, 2),
    ];
    let rows =
        servers.iter().filter_map(|server| Some((server, server.page()?))).flat_map(|(server, page)| {
            models(page).map(move |(model, version, ready)| {
                let of = move |family: &'static str| {
                    move |page: &Page| {
                        let same = page.each(family, ["model", "version"]);
                        // Nothing adds up to -0.
                        same.filter(|([name, _], _)| *name == model).map(|(_, value)| value).sum::<f64>()
                            + 0.0
                    }
                };
                let runs = page.each("confonnx_model_requests_total", ["model", "version"]).next().is_some();
                let runs = runs.then(|| server.rate(of("confonnx_model_requests_total"))).flatten();
                let word = if ready { "served" } else { "not served" };
                vec![
                    Cell::new(model.to_owned()),
                    Cell::new(version.to_owned()),
                    Cell::new(name(&server.url)),
                    state(word, ready),
                    number(runs.map(|rate| format!("{rate:.1}"))),
                    number(
                        server.rate(of("confonnx_batched_requests_total")).map(|rate| format!("{rate:.1}")),
                    ),
                    number(Some(of("confonnx_model_processes_ended_total")(page).to_string())),
                ]
            })
        });
    fitting(&columns, rows, 4, width)
}

/// A column of a table.
struct Column {
    title: &'static str,
    width: u16,
    /// Columns with the most are left out first where the terminal is narrow; those with 0 never.
    spare: u8,
}

impl Column {
    fn new(title: &'static str, width: u16, spare: u8) -> Self {
        let least = u16::try_from(title.chars().count()).unwrap_or(u16::MAX);
        Self { title, width: width.max(least), spare }
    }
}

/// How much room the longest of `texts` takes, within reason.
fn longest<'t>(texts: impl Iterator<Item = &'t str>) -> u16 {
    let most = texts.map(|text| text.chars().count()).max().unwrap_or(0);
    u16::try_from(most).unwrap_or(u16::MAX).min(40)
}

/// As many of `columns` as there is room for; the first `texts` are words, the others numbers.
fn fitting<'r>(
    columns: &[Column],
    rows: impl Iterator<Item = Vec<Cell<'r>>>,
    texts: usize,
    width: u16,
) -> Table<'r> {
    let mut kept: Vec<(usize, &Column)> = columns.iter().enumerate().collect();
    let needed = |kept: &[(usize, &Column)], gap: u16| {
        kept.iter().fold(0_u16, |all, (_, column)| all.saturating_add(column.width).saturating_add(gap))
    };
    while needed(&kept, 1) > width.saturating_add(1)
        && let Some(most) = kept.iter().map(|(_, column)| column.spare).max().filter(|most| *most > 0)
    {
        kept.retain(|(_, column)| column.spare != most);
    }
    let gap = if needed(&kept, 2) > width.saturating_add(2) { 1 } else { 2 };
    let places: Vec<usize> = kept.iter().map(|(place, _)| *place).collect();
    let row = |cells: Vec<Cell<'r>>| {
        let cells = cells.into_iter().enumerate().filter(|(place, _)| places.contains(place));
        Row::new(cells.map(|(_, cell)| cell))
    };
    let titles: Vec<&str> = kept.iter().map(|(_, column)| column.title).collect();
    let widths = kept.iter().map(|(_, column)| Constraint::Length(column.width));
    Table::new(rows.map(row), widths).header(header(&titles, texts)).column_spacing(gap)
}

/// Name and version of each model, and whether it is served.
fn models(page: &Page) -> impl Iterator<Item = (&str, &str, bool)> {
    let each = page.each("confonnx_model_ready", ["model", "version"]);
    each.map(|([model, version], value)| (model, version, value > 0.0))
}

/// What became of requests, all servers together: the most frequent first.
fn draw_outcomes(frame: &mut Frame<'_>, servers: &[Server], area: Rect) {
    let mut all: Vec<(&str, f64, f64)> = Vec::new();
    for (server, page) in servers.iter().filter_map(|server| Some((server, server.page()?))) {
        for (outcome, count) in page.by("confonnx_requests_total", "outcome") {
            let of = |page: &Page| {
                let same = page.by("confonnx_requests_total", "outcome").filter(|(name, _)| *name == outcome);
                same.map(|(_, value)| value).sum::<f64>()
            };
            let rate = server.rate(of).unwrap_or(0.0);
            match all.iter_mut().find(|(name, ..)| *name == outcome) {
                Some((_, sum, rates)) => (*sum, *rates) = (*sum + count, *rates + rate),
                None => all.push((outcome, count, rate)),
            }
        }
    }
    all.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(other.0)));
    let rows = all.into_iter().map(|(outcome, count, rate)| {
        Row::new([
            state(outcome, outcome == "ok"),
            number(Some(count.to_string())),
            number(Some(format!("{rate:.1}"))),
        ])
    });
    let widths = [Constraint::Length(28), Constraint::Length(12), Constraint::Length(10)];
    frame.render_widget(
        Table::new(rows, widths).header(header(&["Outcome", "requests", "per second"], 1)),
        area,
    );
}

fn header<'h>(titles: &[&'h str], texts: usize) -> Row<'h> {
    let cell = |(place, title): (usize, &&'h str)| {
        let line = Line::from(*title);
        Cell::new(if place < texts { line } else { line.right_aligned() })
    };
    Row::new(titles.iter().enumerate().map(cell))
        .style(Style::new().add_modifier(Modifier::BOLD))
        .top_margin(1)
}

fn state(word: &str, good: bool) -> Cell<'static> {
    let color = if good { Color::Green } else { Color::Red };
    let mark = if good { "✓" } else { "✗" };
    Cell::new(Span::styled(format!("{mark} {word}"), Style::new().fg(color)))
}

/// A cell with the text; a dash if it is not known.
fn number(text: Option<String>) -> Cell<'static> {
    Cell::new(Line::from(text.unwrap_or_else(|| "–".into())).right_aligned())
}

fn name(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds.is_infinite() => "long".into(),
        seconds if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.0} s"),
    }
}

fn bytes(each_second: f64) -> String {
    match each_second {
        rate if rate < 1e3 => format!("{rate:.0} B/s"),
        rate if rate < 1e6 => format!("{:.0} kB/s", rate / 1e3),
        rate => format!("{:.0} MB/s", rate / 1e6),
    }
}

fn duration(seconds: f64) -> String {
    match seconds.max(0.0) {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86400.0),
    }
}

const STAGES: &str = "confonnx_stage_seconds";

#[cfg(test)]
mod tests;

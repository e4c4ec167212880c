//! The page of a server's admin port.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The samples of a page in Prometheus' text format, and whether its server is ready.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Page {
    samples: Vec<Sample>,
    /// Why the server is not ready, if it is not.
    pub(super) trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Page {
    pub(super) fn fetch(url: &str, patience: Duration) -> Result<Self, String> {
        let (status, metrics) = get(url, "/metrics", patience)?;
        if status != 200 {
            return Err(format!("/metrics: expected status 200, found {status}: is this an admin port?"));
        }
        let mut page = Self::read(&metrics);
        if page.samples.is_empty() {
            return Err("/metrics: expected Prometheus' text format, found something else".into());
        }
        let (status, said) = get(url, "/health/ready", patience)?;
        page.trouble = (status != 200).then(|| said.lines().next().unwrap_or("not ready").to_owned());
        Ok(page)
    }

    /// Reads a page; a line that is no sample is passed over.
    pub(super) fn read(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
        Self { samples, trouble: None }
    }

    /// The sum of a family's values.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.all(name).map(|sample| sample.value).sum()
    }

    /// A family's values by one of its labels.
    pub(super) fn by<'p>(&'p self, name: &str, label: &'p str) -> impl Iterator<Item = (&'p str, f64)> {
        self.all(name).filter_map(move |sample| Some((sample.label(label)?, sample.value)))
    }

    /// A family's labels and values.
    pub(super) fn each<'p>(
        &'p self,
        name: &str,
        labels: [&'p str; 2],
    ) -> impl Iterator<Item = ([&'p str; 2], f64)> {
        let of = move |sample: &'p Sample| labels.map(|label| sample.label(label).unwrap_or_default());
        self.all(name).map(move |sample| (of(sample), sample.value))
    }

    /// The least value of a family; values of 0 stand for none and are left out.
    pub(super) fn least(&self, name: &str) -> Option<f64> {
        self.all(name).map(|sample| sample.value).filter(|value| *value > 0.0).min_by(f64::total_cmp)
    }

    /// Of a histogram: how many events took up to how long.
    pub(super) fn buckets(&self, name: &str, label: (&str, &str)) -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        let ours = self.all(&name).filter(|sample| sample.label(label.0) == Some(label.1));
        let bound = |text: &str| if text == "+Inf" { Some(f64::INFINITY) } else { text.parse().ok() };
        ours.filter_map(|sample| Some((bound(sample.label("le")?)?, sample.value))).collect()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// Reads `name{label="value",…} number`.
fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.trim().rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = head.split_once('{') else {
        return Some(Sample { name: head.to_owned(), labels: Vec::new(), value });
    };
    let mut rest = rest.strip_suffix('}')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once("=\"")?;
        let mut text = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (place, '"') => break place,
                (_, '\\') => text.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => text.push(other),
            }
        };
        labels.push((label.to_owned(), text));
        let after = quoted.get(end..)?.strip_prefix('"')?;
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Status and body of a plain HTTP/1.1 answer, which an admin port gives.
fn get(url: &str, path: &str, patience: Duration) -> Result<(u16, String), String> {
    let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    if host.is_empty() || host.contains('/') {
        return Err(format!("expected an admin port such as http://127.0.0.1:8889, found {url}"));
    }
    let failed = |err: io::Error| err.to_string();
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:8889")
    };
    let address = with_port.to_socket_addrs().map_err(failed)?.next().ok_or("no such host")?;
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    Ok((status.ok_or("no HTTP answer")?, body.to_owned()))
}

/// The most bytes of an answer, which no page has.
const LONGEST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let page = Page::read(
            "# HELP a b\na 1\nb{x=\"1,2\\\"}\",y=\"\"} 2.5\nb{x=\"z\"} 3\nt_bucket{s=\"i\",le=\"0.5\"} 4\n\
             t_bucket{s=\"i\",le=\"+Inf\"} 5\nt_bucket{s=\"o\",le=\"1\"} 9\nbroken{x=\"1\nnothing\n",
        );
        assert_eq!((page.sum("a"), page.sum("b"), page.sum("none")), (1.0, 5.5, 0.0));
        assert_eq!(page.by("b", "x").collect::<Vec<_>>(), [("1,2\"}", 2.5), ("z", 3.0)]);
        assert_eq!(page.by("b", "y").collect::<Vec<_>>(), [("", 2.5)]);
        assert_eq!(page.buckets("t", ("s", "i")), [(0.5, 4.0), (f64::INFINITY, 5.0)]);
        assert_eq!(page.samples.len(), 6);
    }
}

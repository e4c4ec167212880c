//! The reference pages are made of the code. After a change: `UPDATE_REFERENCE=1 cargo test -p confonnx-server reference`.

use std::{fmt::Write, path::Path};

use confonnx_protocol::Code;
use confonnx_server::{config::Settings, keys::expiry, metrics::Metrics, models::Set};

fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/reference/{name} is not what the code says; see the first line of reference.rs"
    );
}

/// The text as a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn settings() {
    let mut page = String::from(
        "# Settings of confonnx-server\n\nMade of the code: what `confonnx-server --help` says. Each flag is also a variable, \
         and a key of the TOML file\n(`--config`) with `_` for `-`.\n\n| flag | variable | what |\n|---|---|---|\n",
    );
    for argument in Settings::flags().get_arguments() {
        let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else { continue };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let value =
            argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        let variable = variable.to_str().unwrap();
        writeln!(page, "| `--{flag} {value}` | `{variable}` | {} |", cell(&help)).unwrap();
    }
    compare("settings.md", &page);
}

#[test]
fn metrics() {
    let mut page = String::from(
        "# Metrics of confonnx-server\n\nMade of the code: the families of `/metrics` on the admin port.\n\n\
         | name | kind | what |\n|---|---|---|\n",
    );
    let mut families = Set::default().samples();
    families.push(expiry(None));
    let text = Metrics::default().render(&families);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let kind = lines.next().and_then(|line| line.rsplit(' ').next()).unwrap();
        writeln!(page, "| `{name}` | {kind} | {} |", cell(help)).unwrap();
    }
    compare("metrics.md", &page);
}

#[test]
fn errors() {
    let mut page = String::from(
        "# Error codes before a request is opened\n\nMade of the code: problem documents (RFC 9457) of the public port. Those \
         inside the seal are in\n[protocol](../protocol.md).\n\n| code | status | title |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        writeln!(page, "| `{}` | {} | {} |", code.name(), code.status(), cell(code.title())).unwrap();
    }
    compare("errors.md", &page);
}

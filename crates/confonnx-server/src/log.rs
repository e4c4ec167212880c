//! Logging to standard error: what the server does, never what is in a message.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogLevel;

/// Starts logging. Only this crate's events are kept: those of dependencies may quote what they handle.
pub fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Fatal => LevelFilter::OFF,
    };
    let ours = Targets::new().with_target("confonnx_server", level);
    let lines = fmt::layer().with_ansi(false).with_target(false).with_writer(std::io::stderr);
    // Fails only in a program that logs already; its way of logging stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(ours)).try_init();
}

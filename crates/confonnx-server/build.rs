//! Tells the program when it was written, so that its clock never is before that.
//!
//! The date is `SOURCE_DATE_EPOCH`, or in release builds without one that of the commit: the same for whoever builds the
//! same source again. Development builds take a date that is fixed here, so that commits alone build nothing anew.

#![allow(clippy::print_stdout, reason = "that is how build scripts speak")]

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    // 0 is what builders say that want all dates gone: it says nothing of the source.
    let written = given.filter(|&seconds| seconds > 0).or_else(of_commit).unwrap_or(EARLIEST);
    println!("cargo:rustc-env=CONFONNX_WRITTEN={}", EARLIEST.max(written));
}

fn of_commit() -> Option<u64> {
    if std::env::var("PROFILE").ok()? != "release" {
        return None;
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    println!(
        "cargo:rerun-if-changed={}",
        git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])?
    );
    git(&["log", "-1", "--format=%ct"])?.parse().ok()
}

/// 26 November 2026, 00:00 UTC: whatever a builder says, no version of this program was written before.
const EARLIEST: u64 = 1_795_651_200;

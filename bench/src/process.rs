//! Server processes, each with a process group of its own; the group is counted and ended together.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// A process and its descendants, which are ended on drop.
pub(crate) struct Group {
    leader: Child,
    log: PathBuf,
}

impl Group {
    /// Starts `program`, which ends when this process does, however that is; its output goes to `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        variables: &[(&str, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let said = File::create(log).with_context(|| log.display().to_string())?;
        let leader = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {} (with setpriv, of util-linux)", program.display()))?;
        Ok(Self { leader, log: log.to_owned() })
    }

    /// Waits until `found` finds something in the output; fails when the process ends before, or takes longer than a
    /// minute.
    pub(crate) fn wait_for<T>(&mut self, found: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(found) = found(&said) {
                return Ok(found);
            }
            let tail = || {
                said.lines()
                    .rev()
                    .take(12)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            if let Some(status) = self.leader.try_wait()? {
                bail!("it ended with {status} before it served. It said:\n{}", tail());
            }
            if start.elapsed() > STARTING {
                bail!("it did not serve within {STARTING:?}. It said:\n{}", tail());
            }
            thread::sleep(Duration::from_micros(500));
        }
    }

    /// CPU time that all processes have used, to a tick of the clock (10 ms).
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(of_ticks(self.members()?.iter().map(|stat| stat.ticks).sum()))
    }

    /// Bytes of a line of `/proc/PID/status`, such as `VmHWM`, summed over all processes: what two share counts twice.
    pub(crate) fn memory(&self, line: &str) -> anyhow::Result<u64> {
        let each = self.members()?.into_iter().map(|stat| memory(&stat.id.to_string(), line));
        each.sum()
    }

    /// The processes of the group, and the boxes, which are in groups of their own but have a member for a parent.
    fn members(&self) -> anyhow::Result<Vec<Stat>> {
        let (mut members, mut others) = (Vec::new(), Vec::new());
        for entry in fs::read_dir("/proc")? {
            // A process may end between the listing and this reading.
            let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else { continue };
            others.extend(Stat::of(&stat));
        }
        let mut ids = vec![self.leader.id()];
        loop {
            let is_ours = |stat: &Stat| stat.group == self.leader.id() || ids.contains(&stat.parent);
            let (ours, rest): (Vec<Stat>, Vec<Stat>) = others.into_iter().partition(is_ours);
            if ours.is_empty() {
                return Ok(members);
            }
            ids.extend(ours.iter().map(|stat| stat.id));
            members.extend(ours);
            others = rest;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Errors are ignored: the processes may have ended by themselves.
        let Some(group) = Pid::from_raw(self.leader.id().cast_signed()) else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < ENDING && matches!(self.leader.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.leader.wait();
    }
}

/// CPU time that this process has used.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    Stat::of(&stat).map(|stat| of_ticks(stat.ticks)).context("/proc/self/stat is not as expected")
}

/// Bytes of a line of `/proc/{process}/status`.
pub(crate) fn memory(process: &str, line: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("/proc/PID/status")?;
    let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let kibibytes = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("no {line} in /proc/{process}/status"))? << 10)
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    id: u32,
    parent: u32,
    group: u32,
    /// CPU time in ticks of the clock.
    ticks: u64,
}

impl Stat {
    /// The status in that line; the name, in parentheses, may have spaces of its own.
    fn of(stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let id = before.split_whitespace().next()?.parse().ok()?;
        Some(Self { id, parent: number(1)?, group: number(2)?, ticks })
    }
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

const STARTING: Duration = Duration::from_secs(60);
const ENDING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_after_the_name() {
        let stat = "12 (a) b (c) S 1 77 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        assert_eq!(Stat::of(stat), Some(Stat { id: 12, parent: 1, group: 77, ticks: 300 }));
        assert!(own_cpu().is_ok() && memory("self", "VmHWM").unwrap() > 1 << 20);
    }

    #[test]
    fn what_a_descendant_uses_counts_in_a_group_of_its_own_too() {
        let log = std::env::temp_dir().join(format!("confonnx-bench-cpu-{}", std::process::id()));
        let busy = "set -m; sh -c 'while kill -0 $PPID; do :; done' & wait";
        let group = Group::start(Path::new("sh"), &["-c".to_owned(), busy.to_owned()], &[], &log).unwrap();
        let start = Instant::now();
        while group.cpu().unwrap() < Duration::from_millis(50) {
            assert!(start.elapsed() < STARTING, "nothing is counted");
            thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_process_that_ends_says_why() {
        let log = std::env::temp_dir().join(format!("confonnx-bench-test-{}", std::process::id()));
        let arguments = ["-c".to_owned(), "echo out of luck; exit 3".to_owned()];
        let mut group = Group::start(Path::new("sh"), &arguments, &[], &log).unwrap();
        let error = group.wait_for(|_| None::<()>).unwrap_err().to_string();
        fs::remove_file(log).unwrap();
        assert!(error.contains("exit status: 3") && error.contains("out of luck"), "{error}");
    }
}

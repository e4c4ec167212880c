//! Models that are on a disk. The image has the root of a tree of hashes over the disk's blocks, so the image's measurement
//! covers them: the kernel checks each block against it as it is read (dm-verity), and a changed one is a read error.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use confonnx_device::{map_verity, unmap};
use rustix::mount::{MountFlags, mount as mount_at};

use crate::console::say;

/// The models' volume, mounted.
pub(crate) struct Volume {
    disk: String,
    mapped: String,
    bytes: u64,
}

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// The image's own file is not what deploy/vm/make-volume writes.
    #[error("{TABLE}: expected a table of verity's, found {0:?}")]
    Table(String),
    /// The kernel has no device mapper, or refuses to mount.
    #[error("{what}: {source}")]
    Kernel {
        /// What was used.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No disk is the one.
    #[error(
        "expected a disk with the models whose root hash is {0}, found none: attach the file that was made with the image"
    )]
    NoDisk(String),
}

/// Mounts the models' volume if the image has one's root hash: of all disks the one that agrees.
pub(crate) fn mount() -> Result<Option<Volume>, VolumeError> {
    let Ok(text) = fs::read_to_string(TABLE) else { return Ok(None) };
    let table = Table::parse(&text).ok_or_else(|| VolumeError::Table(text.trim().into()))?;
    let control = File::options().read(true).write(true).open(CONTROL).map_err(kernel(CONTROL))?;
    let start = Instant::now();
    // A disk may take a while to show up.
    let volume = loop {
        if let Some(volume) = disks(table.sectors_on_disk).iter().find_map(|disk| table.map(&control, disk)) {
            break volume;
        }
        if start.elapsed() > PATIENCE {
            return Err(VolumeError::NoDisk(table.root));
        }
        thread::sleep(Duration::from_secs(1));
    };
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let file = format!("/dev/{}", volume.mapped);
    mount_at(&file, MODELS, FILE_SYSTEM, flags, None)
        .map_err(|errno| VolumeError::Kernel { what: file, source: errno.into() })?;
    Ok(Some(volume))
}

impl Volume {
    /// Has the console say how much of the models was read, while more is.
    pub(crate) fn watch(&self) {
        let (stat, bytes) = (format!("/sys/block/{}/stat", self.mapped), self.bytes);
        thread::spawn(move || {
            let mut shown = 0;
            loop {
                thread::sleep(EACH);
                let read = sectors_read(&fs::read_to_string(&stat).unwrap_or_default()).unwrap_or(shown);
                if read != shown {
                    let read_bytes = read.saturating_mul(SECTOR);
                    say(&format!("models: {} MB read, of a volume of {} MB", read_bytes / MB, bytes / MB));
                    shown = read;
                }
            }
        });
    }
}

/// What deploy/vm/make-volume says of the volume: parameters of the target `verity`, with `DISK` for the disk.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    parameters: String,
    root: String,
    /// Sectors of files, and of files and hashes.
    sectors: u64,
    sectors_on_disk: u64,
}

impl Table {
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [version, data, hashes, block, hash_block, blocks, start, algorithm, root, _salt] = fields[..]
        else {
            return None;
        };
        let fixed = [version, data, hashes, block, hash_block, algorithm]
            == ["1", "DISK", "DISK", "4096", "4096", "sha256"];
        let sectors = |blocks: &str| blocks.parse::<u64>().ok()?.checked_mul(BLOCK / SECTOR);
        let (sectors, start) = (sectors(blocks)?, sectors(start)?);
        // At least the topmost block of hashes follows.
        let sectors_on_disk = start.checked_add(BLOCK / SECTOR)?;
        let parameters = fields.join(" ");
        (fixed && sectors > 0 && start >= sectors).then(|| Self {
            parameters,
            root: root.into(),
            sectors,
            sectors_on_disk,
        })
    }

    /// Maps the volume on that disk, and reads its first block, whose path to the root the kernel then checks.
    fn map(&self, control: &File, disk: &str) -> Option<Volume> {
        let parameters = self.parameters.replace("DISK", &format!("/dev/{disk}"));
        let number = map_verity(control, NAME, self.sectors, &parameters)
            .map_err(|error| say(&format!("{disk}: cannot be mapped: {error}")))
            .ok()?;
        let mapped = format!("dm-{number}");
        let mut block = [0; BLOCK as usize];
        let read =
            File::open(Path::new("/dev").join(&mapped)).and_then(|mut file| file.read_exact(&mut block));
        if let Err(error) = read {
            say(&format!("{disk}: is not the models' disk, or was changed: {error}"));
            let _ = unmap(control, NAME);
            return None;
        }
        Some(Volume { disk: disk.into(), mapped, bytes: self.sectors.saturating_mul(SECTOR) })
    }
}

/// Disks and partitions with at least that many sectors, by name.
fn disks(sectors: u64) -> Vec<String> {
    let Ok(names) = fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut names: Vec<String> =
        names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| !NO_DISKS.iter().any(|kind| name.starts_with(kind)));
    names.retain(|name| {
        let size = fs::read_to_string(format!("/sys/class/block/{name}/size")).unwrap_or_default();
        size.trim().parse::<u64>().is_ok_and(|size| size >= sectors)
    });
    names.sort();
    names
}

/// The third number of a block device's statistics.
fn sectors_read(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(2)?.parse().ok()
}

fn kernel(what: &str) -> impl FnOnce(io::Error) -> VolumeError {
    move |source| VolumeError::Kernel { what: what.into(), source }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has the volume of the image's root hash, {} MB", self.disk, self.bytes / MB)
    }
}

const TABLE: &str = "/etc/confonnx/volume";
const CONTROL: &str = "/dev/mapper/control";
const MODELS: &str = "/models";
const FILE_SYSTEM: &str = "erofs";
const NAME: &str = "models";
const NO_DISKS: [&str; 5] = ["dm-", "loop", "ram", "sr", "zram"];
const SECTOR: u64 = 512;
const BLOCK: u64 = 4096;
const MB: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(30);
const EACH: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_how_large_disk_and_volume_are() {
        let text = "1 DISK DISK 4096 4096 30 31 sha256 ab cd\n";
        let expected =
            Table { parameters: text.trim().into(), root: "ab".into(), sectors: 240, sectors_on_disk: 256 };
        assert_eq!(Table::parse(text), Some(expected));
        for (from, to) in [
            ("DISK DISK", "/dev/sda DISK"),
            ("sha256", "sha1"),
            ("30 31", "30 29"),
            ("30 31", "0 31"),
            (" cd", ""),
            ("31", "99999999999999999999"),
        ] {
            assert_eq!(Table::parse(&text.replacen(from, to, 1)), None, "{from} to {to}");
        }
    }

    #[test]
    fn statistics_say_what_was_read() {
        assert_eq!(sectors_read("     120        3     4096       17 0 0\n"), Some(4096));
        assert_eq!(sectors_read(""), None);
    }
}

//! RTMR0 of a guest: the configuration that its firmware found. QEMU makes the list of memory (`hw/i386/tdvf-hob.c`) and the
//! ACPI tables; of the tables this takes the files, as a machine like the guest shows them.
//!
//! The order of events is that of OVMF up to edk2-stable202502, which measures seven kinds of them: the list of memory, its
//! volume of variables, who is trusted, a separator, what ACPI tables are made of, and its boot entries.

use sha2::{Digest as _, Sha384};

use super::registers::{PredictedRtmr, predicted};
use super::{Section, sections};
use crate::cursor::Cursor;
use crate::image::MeasureError;
use crate::image::firmware::no_secure_boot;
use crate::image::ovmf::{Firmware, malformed};
use crate::image::uki::Events;

/// The files, by their names in QEMU's fw_cfg, of which the firmware makes ACPI tables by the script `etc/table-loader`: in
/// the order in which it measures them, after the script itself.
///
/// # Errors
/// [`MeasureError`] when it is no such script.
pub fn acpi_files(script: &[u8]) -> Result<Vec<String>, MeasureError> {
    let mut files = Vec::new();
    for command in script.chunks(COMMAND) {
        let mut cursor = Cursor::new(command);
        let (Ok(kind), Ok(name)) = (cursor.u32("command"), cursor.take("file", NAME)) else {
            return Err(bad_script("commands of 128 bytes", format!("one of {}", command.len())));
        };
        if kind == ALLOCATE {
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            // Whoever reads the files takes the names for paths below a folder.
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._/".contains(byte);
            let parts = || name.split(|byte| *byte == b'/');
            if !name.iter().all(plain) || parts().any(|part| part.is_empty() || part.starts_with(b".")) {
                return Err(bad_script("files such as etc/acpi/tables", name.escape_ascii()));
            }
            files.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    if files.is_empty() {
        return Err(bad_script("files for ACPI tables", "none"));
    }
    Ok(files)
}

/// RTMR0 of a guest of QEMU's machine q35 whose kernel is given by `-kernel`.
///
/// `memory` is what QEMU's `-m` says, in bytes; `acpi` the script `etc/table-loader` and after it each of its files
/// ([`acpi_files`]).
///
/// # Errors
/// [`MeasureError`] when it is no firmware for such guests, or its volume of variables is not empty.
pub fn rtmr0<File: AsRef<[u8]>>(
    firmware: &[u8],
    memory: u64,
    acpi: &[File],
) -> Result<Vec<PredictedRtmr>, MeasureError> {
    values(firmware, memory, &acpi.iter().map(Sha384::digest).collect())
}

fn values(firmware: &[u8], memory: u64, acpi: &Events<Sha384>) -> Result<Vec<PredictedRtmr>, MeasureError> {
    let firmware = Firmware::parse(firmware)?;
    let sections = sections(&firmware)?;
    let before = [Sha384::digest(memory_list(&sections, memory)?), Sha384::digest(variables(&sections)?)];
    let after = [Sha384::digest(BOOT_ORDER), Sha384::digest(BOOT_0000.concat())];
    let value = |(when, trusted): (&'static str, Events<Sha384>)| {
        predicted(when, [&before, trusted.as_slice(), acpi, &after].concat())
    };
    Ok(no_secure_boot::<Sha384>().map(value).into())
}

/// The list of memory (TD HOB) as QEMU makes it, without its end: a head (PHIT), then each range, of which the firmware's own
/// are there already and the rest is yet to be accepted.
fn memory_list(sections: &[Section<'_>], memory: u64) -> Result<Vec<u8>, MeasureError> {
    let ranges = ranges(sections, memory)?;
    let list = only(sections, TD_HOB, "a section for the list of memory (TD HOB)")?;
    let len = HEAD.saturating_add(ranges.len().saturating_mul(RANGE)).saturating_add(END);
    let end = list.address.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));

    let mut bytes = hob_header(PHIT, HEAD);
    bytes.extend_from_slice(&9_u32.to_le_bytes());
    // Mode of the boot, and four addresses that such guests do not use.
    bytes.extend_from_slice(&[0; 36]);
    bytes.extend_from_slice(&end.to_le_bytes());
    for Range { kind, start, end } in ranges {
        bytes.extend(hob_header(RESOURCE, RANGE));
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&PRESENT_INITIALIZED_TESTED.to_le_bytes());
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&end.saturating_sub(start).to_le_bytes());
    }
    Ok(bytes)
}

fn hob_header(kind: u16, len: usize) -> Vec<u8> {
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    [kind.to_le_bytes(), len.to_le_bytes(), [0; 2], [0; 2]].concat()
}

struct Range {
    kind: u32,
    start: u64,
    end: u64,
}

fn ranges(sections: &[Section<'_>], memory: u64) -> Result<Vec<Range>, MeasureError> {
    let low = if memory >= SPLIT_FROM { LOW } else { memory };
    let mut own: Vec<_> = sections
        .iter()
        .filter(|section| [TD_HOB, TEMP_MEM].contains(&section.kind))
        .map(|section| (section.address, section.address.saturating_add(section.size)))
        .collect();
    own.sort_unstable();
    let mut ranges = Vec::new();
    let mut at = 0;
    for (start, end) in own {
        if start < at || end > low {
            let expected = format!("sections apart from each other, below {low:#x}, where memory ends");
            return Err(malformed("TDX metadata's memory", expected, format!("{start:#x} to {end:#x}")));
        }
        if start > at {
            ranges.push(Range { kind: UNACCEPTED, start: at, end: start });
        }
        ranges.push(Range { kind: SYSTEM, start, end });
        at = end;
    }
    if at < low {
        ranges.push(Range { kind: UNACCEPTED, start: at, end: low });
    }
    if memory > low {
        let end = FOUR_GIB.saturating_add(memory.saturating_sub(low));
        ranges.push(Range { kind: UNACCEPTED, start: FOUR_GIB, end });
    }
    Ok(ranges)
}

/// The volume of variables (CFV), which has to be empty: with keys in it the firmware would measure those, too.
fn variables<'a>(sections: &[Section<'a>]) -> Result<&'a [u8], MeasureError> {
    let volume = only(sections, CFV, "a volume of variables (CFV)")?.data;
    // After the headers of the volume and of the store in it.
    match volume.get(VOLUME_HEADERS..VOLUME_HEADERS.saturating_add(2)) {
        Some([0xff, 0xff]) => Ok(volume),
        Some(_) => {
            Err(malformed("volume of variables", "an empty one", "variables: use a build without keys"))
        }
        None => {
            Err(malformed("volume of variables", "one with its headers", format!("{} bytes", volume.len())))
        }
    }
}

fn only<'s, 'a>(
    sections: &'s [Section<'a>],
    kind: u32,
    what: &'static str,
) -> Result<&'s Section<'a>, MeasureError> {
    let mut found = sections.iter().filter(|section| section.kind == kind);
    match (found.next(), found.next()) {
        (Some(section), None) => Ok(section),
        (one, _) => {
            let count = if one.is_some() { "several" } else { "none" };
            Err(malformed("TDX metadata", what, count))
        }
    }
}

fn bad_script(expected: &str, found: impl ToString) -> MeasureError {
    MeasureError::Malformed {
        file: "etc/table-loader",
        what: "script for ACPI tables",
        expected: expected.into(),
        found: found.to_string(),
    }
}

/// Kinds of sections: volume of variables, list of memory, memory for the firmware's first steps.
const CFV: u32 = 1;
const TD_HOB: u32 = 2;
const TEMP_MEM: u32 = 3;

/// Commands of the script: each has its number (4 bytes), a file's name (56) and arguments.
const COMMAND: usize = 128;
const NAME: usize = 56;
const ALLOCATE: u32 = 1;

/// With so much memory and more, what is above [`LOW`] comes at 4 GiB (machine q35).
const SPLIT_FROM: u64 = 0xb000_0000;
const LOW: u64 = 0x8000_0000;
const FOUR_GIB: u64 = 1 << 32;

/// UEFI Platform Initialization, volume 3 (HOBs): kinds and lengths of what the list has, kinds of memory.
const PHIT: u16 = 1;
const RESOURCE: u16 = 3;
const HEAD: usize = 56;
const RANGE: usize = 48;
const END: usize = 8;
const SYSTEM: u32 = 0;
const UNACCEPTED: u32 = 7;
const PRESENT_INITIALIZED_TESTED: u32 = 7;

const VOLUME_HEADERS: usize = 0x64;

/// The only boot entry that there is when the firmware starts a kernel by itself: number 0, the firmware's menu.
const BOOT_ORDER: [u8; 2] = [0; 2];
/// Attributes (active, hidden, an application), length of the path, description, path: a file in a volume of the firmware.
const BOOT_0000: [&[u8]; 5] = [
    b"\x09\x01\0\0\x2c\0",
    b"U\0i\0A\0p\0p\0\0\0",
    // 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1
    b"\x04\x07\x14\0\xc9\xbd\xb8\x7c\xeb\xf8\x34\x4f\xaa\xea\x3e\xe4\xaf\x65\x16\xa1",
    // 462caa21-7614-4503-836e-8ab6f4662331
    b"\x04\x06\x14\0\x21\xaa\x2c\x46\x14\x76\x03\x45\x83\x6e\x8a\xb6\xf4\x66\x23\x31",
    b"\x7f\xff\x04\0",
];

#[cfg(test)]
mod tests;

//! PE images (Microsoft PE Format), as far as firmware and stub measure them.

use std::borrow::Cow;
use std::ops::Range;

use sha2::digest::{Digest, Output};

use crate::image::MeasureError;

/// An EFI program for 64-bit machines.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    bytes: &'a [u8],
    /// The checksum's place in the file.
    checksum: usize,
    /// The place of the certificate table's entry.
    certificate_entry: usize,
    /// Length of the certificate table, which is the end of a signed file.
    certificates_len: usize,
    headers_len: usize,
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    name: String,
    /// The section's length in memory, which is that of the contents when the section is longer in the file to be
    /// aligned.
    len: usize,
    file: Range<usize>,
}

impl<'a> Image<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, MeasureError> {
        let dos = bytes.get(..2) == Some(b"MZ");
        let pe = number(bytes, 0x3c, 4).filter(|_| dos).ok_or_else(|| no_pe("a file without `MZ` header"))?;
        let at = |offset: usize| pe.checked_add(offset).ok_or_else(|| no_pe("an offset out of range"));
        let truncated = || no_pe("a truncated header");
        if bytes.get(pe..at(4)?) != Some(b"PE\0\0") {
            return Err(no_pe("a file without `PE` signature"));
        }
        let field = |offset, len| number(bytes, at(offset)?, len).ok_or_else(truncated);
        let (count, optional_len) = (field(6, 2)?, field(20, 2)?);
        let magic = field(24, 2)?;
        if magic != PE32_PLUS {
            return Err(malformed("optional header", "0x20b (PE32+)", &format!("{magic:#x}")));
        }
        if field(24 + 108, 4)? <= CERTIFICATES || optional_len < 112 + 8 * (CERTIFICATES + 1) {
            return Err(malformed("optional header", "at least 5 data directories", "fewer"));
        }
        let certificate_entry = at(24 + 112 + 8 * CERTIFICATES)?;
        let certificates_len = field(24 + 112 + 8 * CERTIFICATES + 4, 4)?;
        let table = at(24)?.checked_add(optional_len).ok_or_else(truncated)?;
        let mut sections = Vec::new();
        for index in 0..count {
            // 96 at most by the format, 65,535 here: bounded by what the file has.
            let start =
                index.checked_mul(40).and_then(|skip| table.checked_add(skip)).ok_or_else(truncated)?;
            let header = start.checked_add(40).and_then(|end| bytes.get(start..end)).ok_or_else(truncated)?;
            sections.push(Section::parse(header, bytes.len())?);
        }
        Ok(Self {
            bytes,
            checksum: at(24 + 64)?,
            certificate_entry,
            certificates_len,
            headers_len: field(24 + 60, 4)?,
            sections,
        })
    }

    pub(crate) fn has_section(&self, name: &str) -> bool {
        self.sections.iter().any(|section| section.name == name)
    }

    /// Contents of a section as they are in memory. Two of one name are refused.
    pub(crate) fn section(&self, name: &str) -> Result<Option<Cow<'a, [u8]>>, MeasureError> {
        let mut found = self.sections.iter().filter(|section| section.name == name);
        let Some(section) = found.next() else { return Ok(None) };
        if found.next().is_some() {
            return Err(malformed("sections", "one of each name", &format!("two named {name}")));
        }
        let file = self.bytes.get(section.file.clone()).unwrap_or_default();
        Ok(Some(match file.get(..section.len) {
            Some(contents) => contents.into(),
            // Bytes that the file does not have are zeros in memory.
            None if section.len.saturating_sub(file.len()) <= MAX_ZEROS => {
                let mut contents = file.to_vec();
                contents.resize(section.len, 0);
                contents.into()
            }
            None => {
                return Err(malformed(
                    "sections",
                    "all in the file",
                    &format!("{name} with over 1 MiB of zeros"),
                ));
            }
        }))
    }

    /// The Authenticode digest (Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image
    /// Hash"), as firmware computes it: without checksum and certificates, the sections by position, then the rest.
    pub(crate) fn authenticode<D: Digest>(&self) -> Output<D> {
        let part = |range: Range<usize>| self.bytes.get(range).unwrap_or_default();
        let mut hash = D::new();
        hash.update(part(0..self.checksum));
        hash.update(part(self.checksum.saturating_add(4)..self.certificate_entry));
        hash.update(part(self.certificate_entry.saturating_add(8)..self.headers_len));
        let mut sections: Vec<_> = self.sections.iter().map(|section| section.file.clone()).collect();
        sections.sort_by_key(|file| file.start);
        let mut hashed = self.headers_len;
        for file in sections {
            hashed = hashed.saturating_add(file.len());
            hash.update(part(file));
        }
        hash.update(part(hashed..self.bytes.len().saturating_sub(self.certificates_len)));
        hash.finalize()
    }

    /// The version of systemd-stub, which it says in a section of its own.
    pub(crate) fn stub_version(&self) -> Result<u32, MeasureError> {
        let magic = self.section(".sdmagic")?.unwrap_or_default();
        let magic = String::from_utf8_lossy(&magic);
        let version = magic.strip_prefix("#### LoaderInfo: systemd-stub ").unwrap_or_default();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        // What 253 measures of .uname and .sbat is not known here.
        digits.parse().ok().filter(|&version| version >= 252 && version != 253).ok_or_else(|| {
            let found = if version.is_empty() { "another stub" } else { version };
            malformed("section .sdmagic", "systemd-stub 252, or 254 and later", found.trim_end_matches('\0'))
        })
    }
}

impl Section {
    fn parse(header: &[u8], file_len: usize) -> Result<Self, MeasureError> {
        let name = header.get(..8).unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let field = |offset| number(header, offset, 4).unwrap_or_default();
        let (memory_len, len, start) = (field(8), field(16), field(20));
        let file = if len == 0 { 0..0 } else { start..start.saturating_add(len) };
        if file.end > file_len {
            return Err(malformed("sections", "all within the file", &format!("{name} beyond its end")));
        }
        Ok(Self { name, len: memory_len, file })
    }
}

/// A little-endian number of up to 4 bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let value = bytes.iter().rev().fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
    usize::try_from(value).ok()
}

fn no_pe(found: &str) -> MeasureError {
    malformed("header", "an EFI program (PE32+)", found)
}

pub(crate) fn malformed(what: &'static str, expected: &str, found: &str) -> MeasureError {
    MeasureError::Malformed { file: FILE, what, expected: expected.into(), found: found.into() }
}

const FILE: &str = "kernel image";
const PE32_PLUS: usize = 0x20b;
/// Index of the certificate table among the data directories.
const CERTIFICATES: usize = 4;
/// Zeros that a file leaves out of a section: less than a page as tools make it.
const MAX_ZEROS: usize = 1 << 20;

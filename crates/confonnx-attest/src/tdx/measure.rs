//! MRTD of TDX guests, from the metadata of their firmware (TDVF).
//!
//! Sources: Intel's TDX Virtual Firmware Design Guide, section 11 (metadata); TDX Module Base Architecture Specification,
//! section on measurement (MRTD). RTMRs are extended while the guest boots ([`rtmr0`], [`rtmrs`]).

use sha2::{Digest as _, Sha384};

mod configuration;
mod registers;

pub use configuration::{acpi_files, rtmr0};
pub use registers::{PredictedRtmr, Rtmrs, rtmrs};

use crate::cursor::{Cursor, Truncated};
use crate::image::MeasureError;
use crate::image::ovmf::{Firmware, Guid, PAGE, malformed};
use crate::{EnclaveHash, Hex};

/// In which order the VMM adds pages and has them measured; MRTD depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrder {
    /// Each page is measured as soon as it is added: KVM of Linux 6.16 and later, QEMU 9 and later.
    PageByPage,
    /// All pages of a section are added, then measured: the out-of-tree KVM of 2023 and its QEMU 7 and 8.
    SectionBySection,
}

/// MRTD of a guest with this firmware: an image in OVMF's form, whole.
pub fn mrtd(firmware: &[u8], order: PageOrder) -> Result<[u8; 48], MeasureError> {
    let firmware = Firmware::parse(firmware)?;
    let mut digest = Sha384::new();
    for section in sections(&firmware)? {
        match order {
            PageOrder::PageByPage => {
                for (address, page) in section.pages() {
                    section.add(address, &mut digest);
                    section.extend(address, &page, &mut digest);
                }
            }
            PageOrder::SectionBySection => {
                for (address, _) in section.pages() {
                    section.add(address, &mut digest);
                }
                for (address, page) in section.pages() {
                    section.extend(address, &page, &mut digest);
                }
            }
        }
    }
    Ok(digest.finalize().into())
}

/// The enclave hash of a guest with that MRTD and those RTMRs.
pub fn enclave_hash(mrtd: &[u8; 48], rtmrs: &[[u8; 48]; 4]) -> EnclaveHash {
    let digest = Sha384::new().chain_update(mrtd).chain_update(rtmrs.as_flattened()).finalize();
    Hex::<48>(digest.into()).into()
}

/// A range of memory that the firmware has the VMM prepare.
struct Section<'a> {
    /// What the section starts with; zeros follow.
    data: &'a [u8],
    address: u64,
    /// The section's size in bytes.
    size: u64,
    kind: u32,
    attributes: u32,
}

impl Section<'_> {
    fn pages(&self) -> impl Iterator<Item = (u64, [u8; PAGE])> {
        let addresses = (self.address..self.address.saturating_add(self.size)).step_by(PAGE);
        let data = self.data.chunks(PAGE).chain(std::iter::repeat(&[][..]));
        addresses.zip(data).map(|(address, data)| {
            let mut page = [0; PAGE];
            page.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
            (address, page)
        })
    }

    /// Does TDH.MEM.PAGE.ADD.
    fn add(&self, address: u64, digest: &mut Sha384) {
        if self.attributes & PAGE_AUG == 0 {
            operation(b"MEM.PAGE.ADD\0\0\0\0", address, digest);
        }
    }

    /// Does TDH.MR.EXTEND, which takes 256 bytes at a time.
    fn extend(&self, address: u64, page: &[u8; PAGE], digest: &mut Sha384) {
        if self.attributes & MR_EXTEND != 0 {
            for (address, chunk) in (address..).step_by(CHUNK).zip(page.chunks(CHUNK)) {
                operation(b"MR.EXTEND\0\0\0\0\0\0\0", address, digest);
                digest.update(chunk);
            }
        }
    }
}

fn operation(name: &[u8; 16], address: u64, digest: &mut Sha384) {
    digest.update(name);
    digest.update(address.to_le_bytes());
    digest.update([0; 104]);
}

fn sections<'a>(firmware: &Firmware<'a>) -> Result<Vec<Section<'a>>, MeasureError> {
    let offset = firmware.number(&METADATA, "TDX metadata entry")?.ok_or(NO_METADATA)?;
    let truncated =
        |err: Truncated| malformed("TDX metadata", format!("{} bytes more", err.wanted), err.left);
    let mut cursor = Cursor::new(firmware.before_end(offset, "TDX metadata offset")?);
    let magic: [u8; 4] = cursor.array("signature").map_err(truncated)?;
    if magic != *b"TDVF" {
        return Err(malformed(
            "TDX metadata signature",
            "TDVF",
            String::from_utf8_lossy(&magic).escape_debug(),
        ));
    }
    let _length = cursor.u32("length").map_err(truncated)?;
    let version = cursor.u32("version").map_err(truncated)?;
    if version != 1 {
        return Err(malformed("TDX metadata version", "1", version));
    }
    let count = cursor.u32("count").map_err(truncated)?;
    if count > MAX_SECTIONS {
        return Err(malformed("number of TDX metadata sections", format!("{MAX_SECTIONS} at most"), count));
    }
    let mut total = 0_u64;
    let mut sections = Vec::new();
    for _ in 0..count {
        let section = section(firmware, cursor.take("section", 32).map_err(truncated)?)?;
        if section.attributes & (MR_EXTEND | PAGE_AUG) == PAGE_AUG {
            // Nothing of such a section is measured, and it may be large.
            continue;
        }
        total = total.saturating_add(section.size);
        if total > MAX_TOTAL {
            return Err(malformed(
                "size of all TDX metadata sections",
                "128 MiB at most",
                format!("{total:#x} bytes"),
            ));
        }
        sections.push(section);
    }
    Ok(sections)
}

fn section<'a>(firmware: &Firmware<'a>, entry: &[u8]) -> Result<Section<'a>, MeasureError> {
    let truncated =
        |err: Truncated| malformed("TDX metadata section", format!("{} bytes more", err.wanted), err.left);
    let mut cursor = Cursor::new(entry);
    let offset = cursor.u32("data offset").map_err(truncated)?;
    let length = cursor.u32("data length").map_err(truncated)?;
    let address = cursor.array("address").map(u64::from_le_bytes).map_err(truncated)?;
    let size = cursor.array("size").map(u64::from_le_bytes).map_err(truncated)?;
    let kind = cursor.u32("type").map_err(truncated)?;
    let attributes = cursor.u32("attributes").map_err(truncated)?;

    let page = PAGE as u64;
    if !address.is_multiple_of(page) || !size.is_multiple_of(page) || u64::from(length) > size {
        let found = format!("{length:#x} bytes of data for {size:#x} bytes at {address:#x}");
        return Err(malformed("TDX metadata section", "whole pages that hold the data", found));
    }
    let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
    let data = range.and_then(|(start, len)| firmware.image().get(start..start.checked_add(len)?));
    let data = data.ok_or_else(|| {
        malformed(
            "TDX metadata section's data",
            "bytes within the image",
            format!("{length:#x} bytes at {offset:#x}"),
        )
    })?;
    Ok(Section { data, address, size, kind, attributes })
}

/// e47a6535-984a-4798-865e-4685a7bf8ec2
const METADATA: Guid = *b"\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2";
/// Attribute: the content is measured.
const MR_EXTEND: u32 = 1;
/// Attribute: pages are added when the guest runs.
const PAGE_AUG: u32 = 2;
/// How many bytes TDH.MR.EXTEND measures.
const CHUNK: usize = 256;
/// The most sections; OVMF has six.
const MAX_SECTIONS: u32 = 64;
/// The most bytes of all sections; OVMF's have a few MiB.
const MAX_TOTAL: u64 = 128 << 20;

const NO_METADATA: MeasureError = MeasureError::Absent {
    file: "firmware",
    what: "TDX metadata",
    hint: "use an OVMF build for TDX (edk2 of 2022 or later, OvmfPkgX64 or IntelTdx)",
};

#[cfg(test)]
mod tests;

//! The launch digest of SEV-SNP guests: MEASUREMENT in their reports.
//!
//! Sources: AMD 56860 (SEV-SNP firmware ABI) section 8.17 for the digest, edk2's `OvmfSevMetadata.asm` for what the
//! firmware has measured, QEMU's `target/i386/sev.c` for the table of kernel hashes.

use sha2::{Digest as _, Sha256, Sha384};

use crate::cursor::{Cursor, Truncated};
use crate::image::MeasureError;
use crate::image::ovmf::{Firmware, Guid, PAGE, malformed};

mod vmsa;

/// How a guest is started.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// The OVMF image: the whole of what is mapped below 4 GiB.
    pub firmware: &'a [u8],
    /// The kernel, when the VMM loads it (`-kernel`) and has the firmware check it (`kernel-hashes=on`).
    pub kernel: Option<Kernel<'a>>,
    /// Number of virtual CPUs.
    pub vcpus: u32,
    /// The CPUs' signature: CPUID leaf 1, EAX. See [`signature_of`].
    pub cpu_signature: u32,
    /// The VMM that starts the guest.
    pub vmm: Vmm,
    /// SEV_FEATURES of the virtual CPUs; bit 0 is SNP itself. KVM of Linux 6.6 and later sets bit 5 (debug swap) too.
    pub guest_features: u64,
}

/// What the VMM loads for the firmware to start.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The image, as its file has it.
    pub image: &'a [u8],
    /// The initial file system; empty when there is none.
    pub initrd: &'a [u8],
    /// The command line.
    pub append: &'a str,
}

/// Virtual machine monitors; each gives its virtual CPUs other initial registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vmm {
    /// QEMU with KVM.
    Qemu,
    /// AWS EC2.
    Ec2,
}

/// The models that [`signature_of`] knows.
pub const CPU_MODELS: [&str; 5] = ["EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"];

/// The signature of a CPU model of QEMU's `-cpu`, with or without its version (`EPYC-v4`).
pub fn signature_of(model: &str) -> Option<u32> {
    let (model, version) = model.rsplit_once("-v").unwrap_or((model, "1"));
    // AMD 25481: extended family, extended model, base family 15, base model, stepping. And the versions that QEMU 10.2 has:
    // another one may be another processor.
    let (signature, versions) = match model {
        "EPYC" => (0x0080_0f12, 5),
        "EPYC-Rome" => (0x0083_0f10, 5),
        "EPYC-Milan" => (0x00a0_0f11, 3),
        "EPYC-Genoa" => (0x00a1_0f10, 2),
        "EPYC-Turin" => (0x00b0_0f00, 1),
        _ => return None,
    };
    (1..=versions).any(|known: u32| known.to_string() == version).then_some(signature)
}

/// The launch digest.
pub fn launch_digest(launch: &Launch<'_>) -> Result<[u8; 48], MeasureError> {
    let Launch { vcpus, guest_features, .. } = *launch;
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(MeasureError::Argument { what: "vCPUs", expected: "1 to 4096", found: vcpus.into() });
    }
    if guest_features & 1 == 0 {
        let expected = "bit 0 set, which is SNP itself";
        return Err(MeasureError::Argument { what: "guest features", expected, found: guest_features });
    }
    let firmware = Firmware::parse(launch.firmware)?;
    let sections = sections(&firmware)?;
    let hashes = launch.kernel.map(|kernel| hashes_page(&firmware, &kernel)).transpose()?;
    if hashes.is_some() && !sections.iter().any(|section| section.kind == Kind::KernelHashes) {
        return Err(MeasureError::Absent {
            file: "firmware",
            what: "a page for kernel hashes",
            hint: "without one the kernel is not measured: use an OVMF build with it (AmdSev), or boot from the disk",
        });
    }

    let mut digest = LaunchDigest([0; 48]);
    for (address, page) in (firmware.base()..).step_by(PAGE).zip(firmware.image().chunks(PAGE)) {
        digest.update(PageType::Normal, address, sha384(page));
    }
    // EC2 has the CPUID page measured after all others.
    let is_late = |section: &Section| launch.vmm == Vmm::Ec2 && section.kind == Kind::Cpuid;
    let (late, first): (Vec<&Section>, Vec<&Section>) = sections.iter().partition(|section| is_late(section));
    for section in first.into_iter().chain(late) {
        digest.section(section, hashes.as_ref())?;
    }
    let reset = firmware.number(&RESET_BLOCK, "SEV-ES reset block")?;
    let boot = vmsa::page(launch, vmsa::BOOT_IP);
    digest.update(PageType::Vmsa, VMSA_ADDRESS, sha384(&boot));
    if vcpus > 1 {
        let other = vmsa::page(launch, reset.ok_or(NO_RESET_BLOCK)?);
        let content = sha384(&other);
        for _ in 1..vcpus {
            digest.update(PageType::Vmsa, VMSA_ADDRESS, content);
        }
    }
    Ok(digest.0)
}

/// A range of memory that the firmware has the VMM prepare.
#[derive(Clone, Copy, Debug)]
struct Section {
    address: u32,
    size: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Secrets,
    Cpuid,
    ServiceModuleArea,
    KernelHashes,
}

/// Types of pages, AMD 56860 table 66.
#[derive(Clone, Copy)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

/// The digest so far.
struct LaunchDigest([u8; 48]);

impl LaunchDigest {
    /// PAGE_INFO, AMD 56860 table 67.
    fn update(&mut self, kind: PageType, address: u64, content: [u8; 48]) {
        let digest = Sha384::new()
            .chain_update(self.0)
            .chain_update(content)
            .chain_update(0x70_u16.to_le_bytes())
            // Type, not an initial migration image, no permissions for VMPL 3 to 1, reserved.
            .chain_update([kind as u8, 0, 0, 0, 0, 0])
            .chain_update(address.to_le_bytes())
            .finalize();
        self.0 = digest.into();
    }

    fn section(&mut self, section: &Section, hashes: Option<&[u8; PAGE]>) -> Result<(), MeasureError> {
        let first = u64::from(section.address);
        match (section.kind, hashes) {
            (Kind::Secrets, _) => self.update(PageType::Secrets, first, [0; 48]),
            (Kind::Cpuid, _) => self.update(PageType::Cpuid, first, [0; 48]),
            (Kind::KernelHashes, Some(page)) => {
                if usize::try_from(section.size) != Ok(PAGE) {
                    return Err(malformed("size of the page for kernel hashes", "4096", section.size));
                }
                self.update(PageType::Normal, first, sha384(page));
            }
            (Kind::Memory | Kind::ServiceModuleArea | Kind::KernelHashes, _) => {
                let end = first.saturating_add(section.size.into());
                for address in (first..end).step_by(PAGE) {
                    self.update(PageType::Zero, address, [0; 48]);
                }
            }
        }
        Ok(())
    }
}

/// The firmware's SEV metadata.
fn sections(firmware: &Firmware<'_>) -> Result<Vec<Section>, MeasureError> {
    let offset = firmware.number(&METADATA, "SEV metadata entry")?.ok_or(NO_METADATA)?;
    let truncated =
        |err: Truncated| malformed("SEV metadata", format!("{} bytes more", err.wanted), err.left);
    let mut cursor = Cursor::new(firmware.before_end(offset, "SEV metadata offset")?);
    let magic: [u8; 4] = cursor.array("signature").map_err(truncated)?;
    if magic != *b"ASEV" {
        return Err(malformed(
            "SEV metadata signature",
            "ASEV",
            String::from_utf8_lossy(&magic).escape_debug(),
        ));
    }
    let _size = cursor.u32("size").map_err(truncated)?;
    let version = cursor.u32("version").map_err(truncated)?;
    if version != 1 {
        return Err(malformed("SEV metadata version", "1", version));
    }
    let count = cursor.u32("count").map_err(truncated)?;
    if count > MAX_SECTIONS {
        return Err(malformed("number of SEV metadata sections", format!("{MAX_SECTIONS} at most"), count));
    }
    let mut total = 0_u32;
    (0..count)
        .map(|_| {
            let address = cursor.u32("address").map_err(truncated)?;
            let size = cursor.u32("size").map_err(truncated)?;
            let kind = kind(cursor.u32("type").map_err(truncated)?)?;
            let whole = |value: u32| usize::try_from(value).is_ok_and(|value| value.is_multiple_of(PAGE));
            total = total.saturating_add(size);
            if !whole(address) || !whole(size) || total > MAX_TOTAL {
                let found = format!("{size:#x} bytes at {address:#x}");
                return Err(malformed("SEV metadata section", "whole pages, all 128 MiB at most", found));
            }
            Ok(Section { address, size, kind })
        })
        .collect()
}

fn kind(kind: u32) -> Result<Kind, MeasureError> {
    Ok(match kind {
        1 => Kind::Memory,
        2 => Kind::Secrets,
        3 => Kind::Cpuid,
        4 => Kind::ServiceModuleArea,
        0x10 => Kind::KernelHashes,
        other => return Err(malformed("SEV metadata section's type", "1 to 4 or 16", other)),
    })
}

/// The page with the table of hashes that QEMU fills in and OVMF compares.
fn hashes_page(firmware: &Firmware<'_>, kernel: &Kernel<'_>) -> Result<[u8; PAGE], MeasureError> {
    let entry =
        |guid: Guid, hash: [u8; 32]| -> Vec<u8> { [&guid[..], &50_u16.to_le_bytes(), &hash].concat() };
    let append = Sha256::new().chain_update(kernel.append).chain_update([0]).finalize();
    let table = [
        &HASHES_TABLE[..],
        &168_u16.to_le_bytes(),
        &entry(HASHES_APPEND, append.into()),
        &entry(HASHES_INITRD, Sha256::digest(kernel.initrd).into()),
        &entry(HASHES_KERNEL, Sha256::digest(kernel.image).into()),
    ]
    .concat();
    let address = firmware.number(&HASHES_ADDRESS, "kernel hashes entry")?.ok_or(NO_HASHES)?;
    let mut page = [0; PAGE];
    let start = usize::try_from(address).unwrap_or(usize::MAX) % PAGE;
    page.get_mut(start..start.saturating_add(table.len()))
        .ok_or_else(|| {
            malformed(
                "address of the kernel hashes",
                "room for 168 bytes in its page",
                format!("{address:#x}"),
            )
        })?
        .copy_from_slice(&table);
    Ok(page)
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    Sha384::digest(bytes).into()
}

/// dc886566-984a-4798-a75e-5585a7bf67cc
const METADATA: Guid = *b"\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc";
/// 00f771de-1a7e-4fcb-890e-68c77e2fb44e
const RESET_BLOCK: Guid = *b"\xde\x71\xf7\x00\x7e\x1a\xcb\x4f\x89\x0e\x68\xc7\x7e\x2f\xb4\x4e";
/// 7255371f-3a3b-4b04-927b-1da6efa8d454
const HASHES_ADDRESS: Guid = *b"\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54";
/// 9438d606-4f22-4cc9-b479-a793d411fd21
const HASHES_TABLE: Guid = *b"\x06\xd6\x38\x94\x22\x4f\xc9\x4c\xb4\x79\xa7\x93\xd4\x11\xfd\x21";
/// 97d02dd8-bd20-4c94-aa78-e7714d36ab2a
const HASHES_APPEND: Guid = *b"\xd8\x2d\xd0\x97\x20\xbd\x94\x4c\xaa\x78\xe7\x71\x4d\x36\xab\x2a";
/// 44baf731-3a2f-4bd7-9af1-41e29169781d
const HASHES_INITRD: Guid = *b"\x31\xf7\xba\x44\x2f\x3a\xd7\x4b\x9a\xf1\x41\xe2\x91\x69\x78\x1d";
/// 4de79437-abd2-427f-b835-d5b172d2045b
const HASHES_KERNEL: Guid = *b"\x37\x94\xe7\x4d\xd2\xab\x7f\x42\xb8\x35\xd5\xb1\x72\xd2\x04\x5b";

/// The address that the RMP has for the pages of virtual CPUs: the last page of 48 bits.
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;
/// The most virtual CPUs, which is QEMU's limit.
const MAX_VCPUS: u32 = 4096;
/// The most sections; OVMF has six.
const MAX_SECTIONS: u32 = 64;
/// The most bytes of all sections; OVMF's have less than 1 MiB.
const MAX_TOTAL: u32 = 128 << 20;

const NO_METADATA: MeasureError = MeasureError::Absent {
    file: "firmware",
    what: "SEV metadata",
    hint: "use an OVMF build for SEV-SNP (edk2 of 2022 or later, OvmfPkgX64 or AmdSev)",
};
const NO_HASHES: MeasureError = MeasureError::Absent {
    file: "firmware",
    what: "an address for kernel hashes",
    hint: "use an OVMF build with it (AmdSev), or boot from the disk and leave the kernel out",
};
const NO_RESET_BLOCK: MeasureError = MeasureError::Absent {
    file: "firmware",
    what: "an SEV-ES reset block",
    hint: "with more than one vCPU the firmware has to say where the others start",
};

#[cfg(test)]
mod tests;

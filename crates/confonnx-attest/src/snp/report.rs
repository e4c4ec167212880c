//! The attestation report: table "ATTESTATION_REPORT Structure" of AMD's SEV-SNP firmware ABI (56860).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ParseError;
use crate::digest;

/// A report that has the right length, and no more than that. Integers are little-endian on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    bytes: [u8; REPORT_BYTES],
    pub(crate) version: u32,
    pub(crate) guest_svn: u32,
    pub(crate) policy: GuestPolicy,
    pub(crate) family_id: [u8; 16],
    pub(crate) image_id: [u8; 16],
    /// Privilege level of who asked; 0 is the highest, all ones is the host.
    pub(crate) vmpl: u32,
    pub(crate) signature_algorithm: u32,
    pub(crate) current_tcb: [u8; 8],
    pub(crate) platform: PlatformInfo,
    flags: u32,
    pub(crate) report_data: [u8; 64],
    pub(crate) measurement: [u8; 48],
    pub(crate) host_data: [u8; 32],
    pub(crate) id_key_digest: [u8; 48],
    pub(crate) author_key_digest: [u8; 48],
    /// The TCB that the signing key is derived from.
    pub(crate) reported_tcb: [u8; 8],
    /// Family, model and stepping of the processor; since version 3.
    cpuid: [u8; 3],
    pub(crate) chip_id: [u8; 64],
    pub(crate) committed_tcb: [u8; 8],
    /// The firmware's version: build, minor, major.
    current_firmware: [u8; 3],
    /// The TCB when the guest was launched or imported.
    pub(crate) launch_tcb: [u8; 8],
    /// Names of fields that have to be zero (or one) and are not.
    pub(crate) reserved: Vec<&'static str>,
}

/// What the guest's owner permitted the platform (56860, "Guest Policy").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestPolicy(u64);

/// What the platform says of its configuration (56860, "PLATFORM_INFO").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlatformInfo(u64);

/// The processor families that have SEV-SNP; each has roots and a TCB layout of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Product {
    Milan,
    /// Genoa, with Bergamo and Siena.
    Genoa,
    Turin,
}

/// The key that signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SigningKey {
    /// The key of the chip and its TCB.
    Vcek,
    /// The key of the cloud provider and the chip's TCB.
    Vlek,
    /// The report is not signed.
    None,
    /// A value that is reserved.
    Unknown(u32),
}

/// Security versions of a platform's parts; higher is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tcb {
    /// Firmware of the security processor's FMC; Turin only, 0 elsewhere.
    pub fmc: u8,
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SEV-SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Report {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let bytes: [u8; REPORT_BYTES] =
            bytes.try_into().map_err(|_| ParseError::Length { found: bytes.len() })?;
        let mut fields = Fields(&bytes);
        let mut report = Self {
            bytes,
            version: fields.u32()?,
            guest_svn: fields.u32()?,
            policy: GuestPolicy(fields.u64()?),
            family_id: fields.array()?,
            image_id: fields.array()?,
            vmpl: fields.u32()?,
            signature_algorithm: fields.u32()?,
            current_tcb: fields.array()?,
            platform: PlatformInfo(fields.u64()?),
            flags: fields.u32()?,
            report_data: {
                fields.array::<4>()?;
                fields.array()?
            },
            measurement: fields.array()?,
            host_data: fields.array()?,
            id_key_digest: fields.array()?,
            author_key_digest: fields.array()?,
            reported_tcb: {
                // REPORT_ID and REPORT_ID_MA.
                fields.array::<64>()?;
                fields.array()?
            },
            cpuid: fields.array()?,
            chip_id: {
                fields.array::<21>()?;
                fields.array()?
            },
            committed_tcb: fields.array()?,
            current_firmware: fields.array()?,
            launch_tcb: {
                // Reserved, the committed version, reserved.
                fields.array::<5>()?;
                fields.array()?
            },
            reserved: Vec::new(),
        };
        report.reserved = report.reserved_fields();
        Ok(report)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes that the signature covers.
    pub(crate) fn signed(&self) -> &[u8] {
        self.part(0, SIGNED_BYTES)
    }

    /// r ‖ s, each of 48 bytes, big-endian. `None` when it is not padded with zeros as it should be: the signature
    /// does not cover those bytes.
    pub(crate) fn signature(&self) -> Option<Vec<u8>> {
        let integer = |at| {
            let (value, padding) = self.part(at, 72).split_at_checked(48)?;
            zero(padding).then(|| value.iter().rev().copied())
        };
        let r = integer(0x2A0)?;
        let s = integer(0x2E8)?;
        zero(self.part(0x330, 0x170)).then(|| r.chain(s).collect())
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        match (self.flags >> 2) & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            other => SigningKey::Unknown(other),
        }
    }

    /// Whether an author key has signed the ID key.
    pub(crate) fn author_key_enabled(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether the host has the chip's own key out of use.
    pub(crate) fn chip_key_masked(&self) -> bool {
        self.flags & 2 != 0
    }

    /// The digest of the key that signed the ID block, when there was one.
    pub(crate) fn id_key(&self) -> Option<[u8; 48]> {
        (!zero(&self.id_key_digest)).then_some(self.id_key_digest)
    }

    /// What the processor's family and model say; `None` before version 3, `Some(None)` for another processor.
    pub(crate) fn product(&self) -> Option<Option<Product>> {
        let [family, model, _] = self.cpuid;
        (self.version >= 3).then_some(match (family, model) {
            (0x19, 0x00..=0x0F) => Some(Product::Milan),
            (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(Product::Genoa),
            (0x1A, 0x00..=0x11) => Some(Product::Turin),
            _ => None,
        })
    }

    /// Family and model, for people.
    pub(crate) fn shown_cpuid(&self) -> String {
        let [family, model, stepping] = self.cpuid;
        format!("family {family:#04x} model {model:#04x} stepping {stepping}")
    }

    /// `major.minor.build` of the running SEV-SNP firmware.
    pub(crate) fn shown_firmware(&self) -> String {
        let [build, minor, major] = self.current_firmware;
        format!("{major}.{minor}.{build}")
    }

    /// Bits of the vulnerabilities that the firmware had mitigated when the guest was launched, and those that it has
    /// now; since version 5.
    pub(crate) fn mitigations(&self) -> Option<[u64; 2]> {
        let vector = |at| {
            let bytes = self.part(at, 8).try_into();
            bytes.map_or(0, u64::from_le_bytes)
        };
        (self.version >= 5).then(|| [vector(0x1F8), vector(0x200)])
    }

    fn reserved_fields(&self) -> Vec<&'static str> {
        // Version 5 put the mitigation vectors at 0x1F8.
        let end = if self.version >= 5 { 0x208 } else { 0x1F8 };
        let cpuid = if self.version >= 3 { 0x18B } else { 0x188 };
        let must_be_zero = [
            ("key info bits 31:5", self.flags >> 5 == 0),
            ("0x4C", zero(self.part(0x4C, 4))),
            ("after the processor's model", zero(self.range(cpuid, 0x1A0))),
            ("0x1EB", zero(self.part(0x1EB, 1))),
            ("0x1EF", zero(self.part(0x1EF, 1))),
            ("before the signature", zero(self.range(end, SIGNED_BYTES))),
            ("guest policy bits 63:26", self.policy.0 >> 26 == 0),
            ("guest policy bit 17", self.policy.0 >> 17 & 1 == 1),
        ];
        must_be_zero.into_iter().filter_map(|(name, ok)| (!ok).then_some(name)).collect()
    }

    fn part(&self, at: usize, len: usize) -> &[u8] {
        self.range(at, at.saturating_add(len))
    }

    /// Bytes of the report; empty when they are not within it, which no caller asks for.
    fn range(&self, from: usize, to: usize) -> &[u8] {
        self.bytes.get(from..to).unwrap_or_default()
    }
}

impl GuestPolicy {
    /// Whether a migration agent may be bound to the guest, which can then move it elsewhere.
    pub(crate) fn allows_migration(self) -> bool {
        self.0 >> 18 & 1 != 0
    }

    /// Whether the host may read and write the guest's memory.
    pub(crate) fn allows_debug(self) -> bool {
        self.0 >> 19 & 1 != 0
    }
}

impl PlatformInfo {
    /// Whether cores run two threads.
    pub(crate) fn smt(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether DRAM hides ciphertexts from the host; Turin and later.
    pub(crate) fn ciphertext_hiding(self) -> bool {
        self.0 >> 4 & 1 != 0
    }

    /// Whether no aliases of memory were found since the last reset (AMD-SB-3015).
    pub(crate) fn alias_check(self) -> bool {
        self.0 >> 5 & 1 != 0
    }
}

impl Product {
    pub(crate) const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The product's name in AMD's certificates and paths.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl SigningKey {
    /// The key's name as people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
            Self::None => "none",
            Self::Unknown(_) => "a kind that is reserved",
        }
    }
}

impl Tcb {
    /// The versions in a TCB_VERSION. `None` when bytes that are reserved in that product's layout are not zero.
    pub(crate) fn decode(bytes: [u8; 8], product: Product) -> Option<Self> {
        let (tcb, reserved) = match product {
            Product::Milan | Product::Genoa => {
                let [bootloader, tee, a, b, c, d, snp, microcode] = bytes;
                (Self { fmc: 0, bootloader, tee, snp, microcode }, a | b | c | d)
            }
            Product::Turin => {
                let [fmc, bootloader, tee, snp, a, b, c, microcode] = bytes;
                (Self { fmc, bootloader, tee, snp, microcode }, a | b | c)
            }
        };
        (reserved == 0).then_some(tcb)
    }

    /// The parts that are older than `minimum`, by how much, and what brings them: nothing when all are new enough.
    pub(crate) fn behind(&self, minimum: &Self) -> String {
        let parts = [
            ("fmc", self.fmc, minimum.fmc, "the host's BIOS"),
            ("bootloader", self.bootloader, minimum.bootloader, "the host's BIOS"),
            ("tee", self.tee, minimum.tee, "the host's BIOS"),
            ("snp", self.snp, minimum.snp, "the host's SEV firmware or BIOS"),
            ("microcode", self.microcode, minimum.microcode, "the host's microcode or BIOS"),
        ];
        let older = parts.iter().filter(|(_, found, minimum, _)| found < minimum);
        older
            .map(|(name, found, minimum, what)| format!("{name} {found} of {minimum} (update {what})"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether every part is at least as new as in `minimum`.
    pub(crate) fn at_least(&self, minimum: &Self) -> bool {
        self.fmc >= minimum.fmc
            && self.bootloader >= minimum.bootloader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, bootloader, tee, snp, microcode } = self;
        write!(f, "fmc {fmc} bootloader {bootloader} tee {tee} snp {snp} microcode {microcode}")
    }
}

/// The fields that were not read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(ParseError::Length { found: self.0.len() })?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ParseError> {
        self.array().map(u64::from_le_bytes)
    }
}

/// A TCB_VERSION whose layout is unknown, for people.
pub(crate) fn shown_raw_tcb(bytes: [u8; 8]) -> String {
    format!("{} (raw)", digest::encode(&bytes))
}

fn zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// How many bytes a report has.
pub(crate) const REPORT_BYTES: usize = 0x4A0;
const SIGNED_BYTES: usize = 0x2A0;

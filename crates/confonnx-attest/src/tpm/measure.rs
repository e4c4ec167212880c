//! PCRs 4 and 11 after booting a unified kernel image (UAPI Group, Unified Kernel Image).
//!
//! Assumed: firmware as the TCG PC Client Platform Firmware Profile has it starts the image itself, at the first
//! attempt, without another boot loader before it; the image was made with systemd-stub and nothing accompanies it
//! (drop-ins, add-ons and credentials are measured into PCRs 12 and 13, and change neither).

use sha2::{Digest as _, Sha256};

use crate::Hex;
use crate::image::MeasureError;

mod pe;

use pe::Image;

/// What a TPM will say of a unified kernel image. All values of one PCR are of the same image, so a policy may accept
/// them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UkiMeasurement {
    /// The programs that the firmware loads: by the name of the case.
    pub pcr4: Vec<Predicted>,
    /// The parts of the image, by phase of the boot, the first before any: systemd measures each phase it enters.
    pub pcr11: Vec<Predicted>,
}

/// One value a PCR may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// When the PCR has the value.
    pub when: &'static str,
    /// The value in the SHA-256 bank.
    pub value: Hex<32>,
}

/// Predicts PCRs 4 and 11.
///
/// # Errors
/// [`MeasureError`] when it is no such image, or has parts whose measurement depends on the machine.
pub fn uki(image: &[u8]) -> Result<UkiMeasurement, MeasureError> {
    let image = Image::parse(image)?;
    let linux = image.section(LINUX)?.ok_or(MeasureError::Absent {
        file: FILE,
        what: "section .linux",
        hint: "give a unified kernel image, as ukify and dracut make it",
    })?;
    if let Some(name) = VARYING.into_iter().find(|name| image.has_section(name)) {
        return Err(pe::malformed("sections", "none whose measurement depends on the machine", name));
    }
    Ok(UkiMeasurement { pcr4: pcr4(&image, &linux)?, pcr11: pcr11(&image)? })
}

/// PCR 4: the firmware's announcement of the attempt, its separator, the Authenticode digest of each program it loads.
/// The kernel inside is one of them when the stub has the firmware load it, which depends on Secure Boot and version.
fn pcr4(image: &Image<'_>, linux: &[u8]) -> Result<Vec<Predicted>, MeasureError> {
    let mut pcr = Pcr::default();
    pcr.extend(b"Calling EFI Application from Boot Option");
    pcr.extend(&[0; 4]);
    pcr.extend_digest(&image.authenticode());
    let mut values = vec![Predicted { when: "image loaded", value: pcr.value() }];
    // A kernel without EFI stub is no such program, so the firmware never loads it.
    if let Ok(kernel) = Image::parse(linux) {
        pcr.extend_digest(&kernel.authenticode());
        values.push(Predicted { when: "image and the kernel in it loaded", value: pcr.value() });
    }
    Ok(values)
}

/// PCR 11: name and contents of each section, then the phases.
fn pcr11(image: &Image<'_>) -> Result<Vec<Predicted>, MeasureError> {
    let mut pcr = Pcr::default();
    let stub = image.stub_version()?;
    for (name, since) in MEASURED {
        if let Some(contents) = image.section(name)?
            && stub >= since
        {
            pcr.extend(&[name.as_bytes(), &[0]].concat());
            pcr.extend(&contents);
        }
    }
    let mut values = vec![Predicted { when: "kernel started", value: pcr.value() }];
    for phase in PHASES {
        pcr.extend(phase.as_bytes());
        values.push(Predicted { when: phase, value: pcr.value() });
    }
    Ok(values)
}

/// A PCR of the SHA-256 bank, from its reset.
#[derive(Default)]
struct Pcr([u8; 32]);

impl Pcr {
    fn extend(&mut self, measured: &[u8]) {
        self.extend_digest(&Sha256::digest(measured).into());
    }

    fn extend_digest(&mut self, digest: &[u8; 32]) {
        self.0 = Sha256::new().chain_update(self.0).chain_update(digest).finalize().into();
    }

    fn value(&self) -> Hex<32> {
        Hex(self.0)
    }
}

const FILE: &str = "kernel image";
const LINUX: &str = ".linux";
/// The sections in the order in which the stub measures them, each with the first version of systemd-stub that does.
/// `.pcrsig` is not among them, since it signs the result.
const MEASURED: [(&str, u32); 10] = [
    (LINUX, 252),
    (".osrel", 252),
    (".cmdline", 252),
    (".initrd", 252),
    (".ucode", 256),
    (".splash", 252),
    (".dtb", 252),
    (".uname", 254),
    (".sbat", 254),
    (".pcrpkey", 252),
];
/// Sections among which the stub chooses by the machine or the menu.
const VARYING: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];
/// The phases of the boot, by `systemd-pcrphase.service` and its companions.
const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];

#[cfg(test)]
mod tests;

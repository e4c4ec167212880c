//! PCRs after booting a unified kernel image.
//!
//! Assumed: firmware as the TCG PC Client Platform Firmware Profile has it starts the image itself, at the first
//! attempt, without another boot loader before it; the image was made with systemd-stub and nothing accompanies it
//! (drop-ins, add-ons and credentials are measured into PCRs 12 and 13, which then are not zero).

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::Hex;
use crate::image::MeasureError;
use crate::image::uki::{Events, Uki, extended};

/// What a TPM will say of a unified kernel image, by the index of the PCR. All values of one PCR are of the same image, so a
/// policy may accept them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UkiMeasurement {
    /// What the image decides: 4, 8, 9 and 11 to 14.
    pub image: BTreeMap<u8, Vec<Predicted>>,
    /// What the machine decides, of a machine that adds nothing: 2, 3, 5, 6 and 7. PCRs 0 and 1 are of its firmware, its
    /// settings and its devices.
    pub plain_machine: BTreeMap<u8, Vec<Predicted>>,
}

/// One value a PCR may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predicted {
    /// When the PCR has the value.
    pub when: &'static str,
    /// The value in the SHA-256 bank.
    pub value: Hex<32>,
}

/// Predicts the PCRs.
///
/// # Errors
/// [`MeasureError`] when it is no such image, or has parts whose measurement depends on the machine.
pub fn uki(image: &[u8]) -> Result<UkiMeasurement, MeasureError> {
    let uki = Uki::parse(image)?;
    let zeros = |when| vec![predicted(when, Vec::new())];
    let image = BTreeMap::from([
        (4, pcr4(&uki)),
        (8, zeros("no other boot loader")),
        (9, vec![predicted("kernel started", uki.linux::<Sha256>()?)]),
        (11, pcr11(&uki)?),
        (12, zeros("no command line or credential from outside")),
        (13, zeros("no extension from outside")),
        (14, zeros("no keys of shim")),
    ]);
    Ok(UkiMeasurement { image, plain_machine: plain_machine() })
}

/// PCR 4: the firmware's announcement of the attempt, its separator, each program it loads.
fn pcr4(uki: &Uki<'_>) -> Vec<Predicted> {
    let mut events = vec![Sha256::digest(ATTEMPT), Sha256::digest(SEPARATOR), uki.program::<Sha256>()];
    let mut values = vec![predicted("image loaded", events.clone())];
    if let Some(kernel) = uki.kernel::<Sha256>() {
        events.push(kernel);
        values.push(predicted("image and the kernel in it loaded", events));
    }
    values
}

/// PCR 11: the sections, then the phases.
fn pcr11(uki: &Uki<'_>) -> Result<Vec<Predicted>, MeasureError> {
    let mut events = uki.sections::<Sha256>()?;
    let mut values = vec![predicted("kernel started", events.clone())];
    for phase in PHASES {
        events.push(Sha256::digest(phase));
        values.push(predicted(phase, events.clone()));
    }
    Ok(values)
}

fn plain_machine() -> BTreeMap<u8, Vec<Predicted>> {
    let separator = || Sha256::digest(SEPARATOR);
    let left = ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];
    let variables = VARIABLES.map(|(guid, name, value)| Sha256::digest(variable(&guid, name, value)));
    BTreeMap::from([
        (2, vec![predicted("no drivers of cards", vec![separator()])]),
        (3, vec![predicted("no settings of them", vec![separator()])]),
        (
            5,
            vec![predicted(
                "no partition table",
                [separator()].into_iter().chain(left.map(Sha256::digest)).collect(),
            )],
        ),
        (6, vec![predicted("nothing of the maker's", vec![separator()])]),
        (
            7,
            vec![predicted("Secure Boot off, no keys", variables.into_iter().chain([separator()]).collect())],
        ),
    ])
}

/// A variable as the firmware measures it (UEFI_VARIABLE_DATA): GUID, lengths of name and value, name in UTF-16, value.
fn variable(guid: &[u8; 16], name: &str, value: &[u8]) -> Vec<u8> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes();
    let name: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    [guid.as_slice(), &length(units.len()), &length(value.len()), &name, value].concat()
}

fn predicted(when: &'static str, events: Events<Sha256>) -> Predicted {
    Predicted { when, value: Hex(extended::<Sha256>(events).into()) }
}

const ATTEMPT: &str = "Calling EFI Application from Boot Option";
const SEPARATOR: [u8; 4] = [0; 4];
/// The phases of the boot, by `systemd-pcrphase.service` and its companions.
const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];
/// 8be4df61-93ca-11d2-aa0d-00e098032b8c, of EFI's own variables.
const GLOBAL: [u8; 16] = *b"\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c";
/// d719b2cb-3d3a-4596-a3bc-dad00e67656f, of the lists of keys and images.
const SECURITY: [u8; 16] = *b"\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f";
/// What decides whom the firmware trusts, in the order in which it is measured.
const VARIABLES: [([u8; 16], &str, &[u8]); 5] = [
    (GLOBAL, "SecureBoot", &[0]),
    (GLOBAL, "PK", &[]),
    (GLOBAL, "KEK", &[]),
    (SECURITY, "db", &[]),
    (SECURITY, "dbx", &[]),
];

#[cfg(test)]
mod tests;

//! PCRs after booting a unified kernel image.
//!
//! Assumed: firmware as the TCG PC Client Platform Firmware Profile has it starts the image itself, at the first
//! attempt, without another boot loader before it; the image was made with systemd-stub and nothing accompanies it
//! (drop-ins, add-ons and credentials are measured into PCRs 12 and 13, which then are not zero).

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::Hex;
use crate::image::MeasureError;
use crate::image::firmware::{ATTEMPT, LEFT, SEPARATOR, no_secure_boot};
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
    BTreeMap::from([
        (2, vec![predicted("no drivers of cards", vec![separator()])]),
        (3, vec![predicted("no settings of them", vec![separator()])]),
        (
            5,
            vec![predicted(
                "no partition table",
                [separator()].into_iter().chain(LEFT.map(Sha256::digest)).collect(),
            )],
        ),
        (6, vec![predicted("nothing of the maker's", vec![separator()])]),
        (7, no_secure_boot::<Sha256>().map(|(when, events)| predicted(when, events)).into()),
    ])
}

fn predicted(when: &'static str, events: Events<Sha256>) -> Predicted {
    Predicted { when, value: Hex(extended::<Sha256>(events).into()) }
}

/// The phases of the boot, by `systemd-pcrphase.service` and its companions.
const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];
#[cfg(test)]
mod tests;

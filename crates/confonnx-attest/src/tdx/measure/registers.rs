//! RTMR1 to RTMR3 of a guest that boots a unified kernel image.
//!
//! Registers are those to which UEFI 2.10 (38.4.1, Intel TDX) maps PCRs: 2 to 6 go to RTMR1, 8 to 15 to RTMR2, in the order
//! of all their events.

use sha2::{Digest as _, Sha384};

use crate::Hex;
use crate::image::MeasureError;
use crate::image::firmware::{ATTEMPT, LEFT, SEPARATOR};
use crate::image::uki::{Events, Uki, extended};

/// What a quote will say of a unified kernel image. All values of one register are of the same image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtmrs {
    /// The programs that the firmware loads.
    pub rtmr1: Vec<PredictedRtmr>,
    /// Parts of the image, as far as systemd-stub (since 257) and the kernel (since 6.9) measure where there is no TPM.
    pub rtmr2: Vec<PredictedRtmr>,
    /// Zeros: nothing in the image extends it.
    pub rtmr3: Vec<PredictedRtmr>,
}

/// One value a register may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredictedRtmr {
    /// When the register has the value.
    pub when: &'static str,
    /// The value.
    pub value: Hex<48>,
}

/// Predicts the registers of a guest with OVMF that starts the image.
///
/// # Errors
/// [`MeasureError`] when it is no such image, or has parts whose measurement depends on the machine.
pub fn rtmrs(image: &[u8]) -> Result<Rtmrs, MeasureError> {
    let uki = Uki::parse(image)?;
    let (program, kernel) = (uki.program::<Sha384>(), uki.kernel::<Sha384>());
    let mut rtmr1 = Vec::new();
    for (direct, [alone, both]) in [(true, DIRECT), (false, FROM_DISK)] {
        rtmr1.push(predicted(alone, programs(direct, program, None)));
        if kernel.is_some() {
            rtmr1.push(predicted(both, programs(direct, program, kernel)));
        }
    }
    let mut parts = Vec::new();
    if uki.stub_measures_without_tpm()? {
        parts.extend(uki.sections::<Sha384>()?);
    }
    if uki.linux_measures_without_tpm() {
        parts.extend(uki.linux::<Sha384>()?);
    }
    Ok(Rtmrs {
        rtmr1,
        rtmr2: vec![predicted("kernel started", parts)],
        rtmr3: vec![predicted("nothing extends it", Vec::new())],
    })
}

/// What the VMM gave as kernel is loaded before the firmware announces the attempt; what is on a disk, after.
fn programs(direct: bool, program: Digest, kernel: Option<Digest>) -> Events<Sha384> {
    let announced = [Sha384::digest(ATTEMPT), Sha384::digest(SEPARATOR)];
    let mut events = announced.to_vec();
    events.insert(if direct { 0 } else { announced.len() }, program);
    events.extend(kernel);
    events.extend(LEFT.map(Sha384::digest));
    events
}

pub(super) fn predicted(when: &'static str, events: Events<Sha384>) -> PredictedRtmr {
    PredictedRtmr { when, value: Hex(extended::<Sha384>(events).into()) }
}

type Digest = sha2::digest::Output<Sha384>;

const DIRECT: [&str; 2] = ["started by QEMU's -kernel", "the same, and the kernel in it loaded"];
const FROM_DISK: [&str; 2] =
    ["started from a disk without partition table", "the same, and the kernel in it loaded"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::encode;

    /// The value is computed by Python's hashlib. A quote of hardware (dstack 0.6.0, kernel given by QEMU's -kernel) had the
    /// registers that follow from its events in this order, RTMR2's with the kernel's two events.
    #[test]
    fn registers_follow_from_events_in_the_order_of_hardware() {
        let rtmr1 = extended::<Sha384>(programs(true, Sha384::digest("image"), None));
        assert_eq!(
            encode(&rtmr1),
            "5377f7038e0acde1caad3805d611c4eb383cd0b7baac93f6b9a775a4a1da3cc5081f9b93dceebe1a149f1dc1e9af73f6"
        );
    }

    #[test]
    fn a_program_of_a_disk_comes_after_the_announcement() {
        let program = Sha384::digest("image");
        let [direct, disk] = [true, false].map(|direct| programs(direct, program, None));
        assert_eq!((direct[0], disk[2]), (program, program));
        assert_eq!(direct[1..3], disk[..2]);
        assert_eq!(programs(false, program, Some(direct[1]))[3], direct[1]);
    }
}

//! What OVMF measures of itself and of its machine, whatever it starts.

use sha2::digest::{Digest, Output};

use super::ovmf::Guid;
use super::uki::Events;

/// What is measured before the first program of a boot entry starts.
pub(crate) const ATTEMPT: &str = "Calling EFI Application from Boot Option";
/// What ends the events of the firmware itself.
pub(crate) const SEPARATOR: [u8; 4] = [0; 4];
/// What is measured when the system takes over from the firmware.
pub(crate) const LEFT: [&str; 2] =
    ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];

/// What decides whom the firmware trusts, of firmware that has no keys: where Secure Boot is off, and where the firmware was
/// built without it and has no such variable.
pub(crate) fn no_secure_boot<D: Digest>() -> [(&'static str, Events<D>); 2] {
    let lists = [(GLOBAL, "PK"), (GLOBAL, "KEK"), (SECURITY, "db"), (SECURITY, "dbx")];
    let values: [(&str, &[u8]); 2] =
        [("Secure Boot off, no keys", &[0]), ("firmware built without Secure Boot", &[])];
    values.map(|(when, value)| {
        let empty = lists.iter().map(|(guid, name)| variable::<D>(guid, name, &[]));
        let events = [variable::<D>(&GLOBAL, "SecureBoot", value)].into_iter().chain(empty);
        (when, events.chain([D::digest(SEPARATOR)]).collect())
    })
}

/// A variable as the firmware measures it (UEFI_VARIABLE_DATA): GUID, lengths of name and value, name in UTF-16, value.
fn variable<D: Digest>(guid: &Guid, name: &str, value: &[u8]) -> Output<D> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes();
    let name: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    D::digest([guid.as_slice(), &length(units.len()), &length(value.len()), &name, value].concat())
}

/// 8be4df61-93ca-11d2-aa0d-00e098032b8c, of EFI's own variables.
const GLOBAL: Guid = *b"\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c";
/// d719b2cb-3d3a-4596-a3bc-dad00e67656f, of the lists of keys and images.
const SECURITY: Guid = *b"\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f";

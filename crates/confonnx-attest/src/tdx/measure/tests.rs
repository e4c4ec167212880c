use super::*;
use crate::digest::encode;
use crate::image::ovmf::tests::image;

/// Where the metadata of a test image starts, from its end.
const OFFSET: u32 = 0x800;

/// A section: data offset and length, address, size, type, attributes.
pub(super) type Entry = (u32, u32, u64, u64, u32, u32);

/// As IntelTdx builds have them: code, variables, hand-off block, temporary memory, memory added later.
const SECTIONS: [Entry; 5] = [
    (0x2000, 0x2000, 0xffff_e000, 0x2000, 0, MR_EXTEND),
    (0, 0x1800, 0xffff_c000, 0x2000, 1, MR_EXTEND),
    (0, 0, 0x80_9000, 0x2000, 2, 0),
    (0, 0, 0x81_0000, 0x1_0000, 3, 0),
    (0, 0, 0, 0x400_0000, 4, PAGE_AUG),
];

fn firmware(sections: &[Entry]) -> Vec<u8> {
    firmware_of(16_384, sections)
}

pub(super) fn firmware_of(len: usize, sections: &[Entry]) -> Vec<u8> {
    let mut bytes = b"TDVF".to_vec();
    for number in
        [16 + 32 * u32::try_from(sections.len()).unwrap(), 1, u32::try_from(sections.len()).unwrap()]
    {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for (offset, length, address, size, kind, attributes) in sections {
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&address.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&attributes.to_le_bytes());
    }
    let mut image = image(len, &[(METADATA, &OFFSET.to_le_bytes())]);
    let start = image.len() - 0x800;
    image[start..start + bytes.len()].copy_from_slice(&bytes);
    image
}

/// The values are computed by 20 lines of Python's hashlib from the same sources.
#[test]
fn mrtd_matches_values_computed_elsewhere() {
    let firmware = firmware(&SECTIONS);
    assert_eq!(
        encode(&mrtd(&firmware, PageOrder::PageByPage).unwrap()),
        "146a5cd249aed8f50ffb38ede5e48b7928e91c678460db73d0b7d9c4199d6bc4232cddc66711e1f7cee826f3a9c8f894"
    );
    assert_eq!(
        encode(&mrtd(&firmware, PageOrder::SectionBySection).unwrap()),
        "50e551717bb8bc2ac01c38318f86d84c1e2726d3b7143a20e142e34790568249ec3541c57a9301fbea6757fc096e926d"
    );
}

#[test]
fn every_measured_byte_matters_and_no_other() {
    let good = firmware(&SECTIONS);
    let base = mrtd(&good, PageOrder::PageByPage).unwrap();
    for (at, matters) in
        [(0, true), (0x17ff, true), (0x1800, false), (0x1fff, false), (0x2000, true), (0x3fff, true)]
    {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        assert_eq!(mrtd(&flipped, PageOrder::PageByPage).unwrap() != base, matters, "{at:#x}");
    }
}

#[test]
fn the_enclave_hash_is_over_all_registers() {
    let found = enclave_hash(&[1; 48], &[[2; 48], [3; 48], [4; 48], [5; 48]]);
    let expected: Vec<u8> = (1..=5).flat_map(|i| [i; 48]).collect();
    assert_eq!(found.as_bytes(), Sha384::digest(expected).as_slice());
}

#[test]
fn firmware_that_cannot_start_such_guests_is_refused_with_a_reason() {
    let error = |firmware: &[u8]| mrtd(firmware, PageOrder::PageByPage).unwrap_err().to_string();
    assert!(error(&image(4096, &[])).contains("expected TDX metadata in the firmware"));
    for (section, reason) in [
        ((0, 0, 1, 0x1000, 0, 1), "whole pages"),
        ((0, 0, 0, 0x1001, 0, 1), "whole pages"),
        ((0, 0x1001, 0, 0x1000, 0, 1), "that hold the data"),
        ((0, 0, 0, 0x2000_0000, 0, 1), "128 MiB at most"),
        ((0x3fff, 2, 0, 0x1000, 0, 1), "within the image"),
        ((u32::MAX, 2, 0, 0x1000, 0, 1), "within the image"),
    ] {
        let found = error(&firmware(&[section]));
        assert!(found.contains(reason), "{found}");
    }
    let mut other = firmware(&SECTIONS);
    let start = other.len() - 0x800;
    other[start + 12] = 65;
    assert!(error(&other).contains("64 at most, found 65"));
    other[start + 8] = 2;
    assert!(error(&other).contains("version: expected 1, found 2"));
    other[start] = b'B';
    assert!(error(&other).contains("expected TDVF, found BDVF"));
}

#[test]
fn guids_are_those_of_their_text() {
    let [a, b, c, d, e, f, g, h, rest @ ..] = METADATA;
    assert_eq!(encode(&[&[d, c, b, a, f, e, h, g], &rest[..]].concat()), "e47a6535984a4798865e4685a7bf8ec2");
}

use super::*;
use crate::digest::{decode_array, encode};
use crate::image::ovmf::tests::image;

/// Sections as edk2's AmdSev build has them: address, size, type.
const SECTIONS: [(u32, u32, u32); 6] = [
    (0x80_0000, 0x9000, 1),
    (0x80_a000, 0x3000, 1),
    (0x80_d000, 0x1000, 2),
    (0x80_e000, 0x1000, 3),
    (0x81_0000, 0x1000, 0x10),
    (0x81_1000, 0xf000, 1),
];

/// Where the SEV metadata of a test image starts, from its end.
const METADATA_OFFSET: u32 = 0x800;

fn metadata(version: u32, sections: &[(u32, u32, u32)]) -> Vec<u8> {
    let mut bytes = b"ASEV".to_vec();
    let size = u32::try_from(16 + 12 * sections.len()).unwrap();
    for number in [size, version, u32::try_from(sections.len()).unwrap()] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for (address, size, kind) in sections {
        for number in [address, size, kind] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
    bytes
}

fn firmware_with(sections: &[(u32, u32, u32)], entries: &[(Guid, &[u8])]) -> Vec<u8> {
    let mut image = image(16_384, entries);
    let start = image.len() - usize::try_from(METADATA_OFFSET).unwrap();
    let metadata = metadata(1, sections);
    image[start..start + metadata.len()].copy_from_slice(&metadata);
    image
}

fn firmware() -> Vec<u8> {
    firmware_with(
        &SECTIONS,
        &[
            (METADATA, &METADATA_OFFSET.to_le_bytes()),
            (HASHES_ADDRESS, &[0x00, 0x0c, 0x81, 0x00, 0x00, 0x04, 0x00, 0x00]),
            (RESET_BLOCK, &0x0080_b004_u32.to_le_bytes()),
        ],
    )
}

const KERNEL: Kernel<'_> = Kernel { image: b"kernel", initrd: b"initrd", append: "console=ttyS0" };

fn launch(firmware: &[u8]) -> Launch<'_> {
    Launch {
        firmware,
        kernel: Some(KERNEL),
        vcpus: 4,
        cpu_signature: signature_of("EPYC-v4").unwrap(),
        vmm: Vmm::Qemu,
        guest_features: 1,
    }
}

fn hex(launch: &Launch<'_>) -> String {
    encode(&launch_digest(launch).unwrap())
}

/// The values are those of sev-snp-measure 0.0.13 for the same inputs.
#[test]
fn digests_match_values_computed_elsewhere() {
    let firmware = firmware();
    let base = launch(&firmware);
    assert_eq!(
        hex(&base),
        "b5fb65f9c14d4b73b1c98e9211872bf7f63b503149d5e7182633349b9068decafc79b344197a64cea4048321b40ddb36"
    );
    assert_eq!(
        hex(&Launch { kernel: None, ..base.clone() }),
        "101e5243f09de549ea16a703df96f63629edf0f96c739531998d91e28cc673f3a9dd28f54345ced942d81fb52d2a799c"
    );
    assert_eq!(
        hex(&Launch { vcpus: 1, vmm: Vmm::Ec2, ..base.clone() }),
        "fec258edd7f353040e4a969abc25d4a563757791248cbab956c7f142b94b27e650d12ffd81a344739f9a340e33c884c2"
    );
    let genoa = signature_of("EPYC-Genoa").unwrap();
    assert_eq!(
        hex(&Launch { vcpus: 64, cpu_signature: genoa, guest_features: 0x21, ..base }),
        "e9d20210947deea8fe1bacc8a66d47204cb18c26bdead5507182be3bf2409d2d0c388cf4a0c488c08c953b2c5cad47cd"
    );
}

#[test]
fn every_input_matters() {
    let firmware = firmware();
    let base = launch(&firmware);
    let mut flipped = firmware.clone();
    flipped[5000] ^= 1;
    let changed = [
        Launch { firmware: &flipped, ..base.clone() },
        Launch { kernel: Some(Kernel { image: b"kernel2", ..KERNEL }), ..base.clone() },
        Launch { kernel: Some(Kernel { initrd: b"", ..KERNEL }), ..base.clone() },
        Launch { kernel: Some(Kernel { append: "", ..KERNEL }), ..base.clone() },
        Launch { kernel: None, ..base.clone() },
        Launch { vcpus: 3, ..base.clone() },
        Launch { cpu_signature: 0, ..base.clone() },
        Launch { vmm: Vmm::Ec2, ..base.clone() },
        Launch { guest_features: 0x21, ..base.clone() },
    ];
    let mut all: Vec<_> = changed.iter().chain([&base]).map(hex).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), changed.len() + 1);
}

#[test]
fn cpu_models_have_versions() {
    for model in CPU_MODELS {
        assert_eq!(signature_of(&format!("{model}-v1")), signature_of(model));
        assert!(signature_of(model).is_some(), "{model}");
    }
    let unknown = ["", "epyc", "EPYC-Milan-vx", "EPYC-v", "EPYC-v6", "EPYC-v04", "EPYC-Turin-v2", "Skylake"];
    for model in unknown {
        assert_eq!(signature_of(model), None, "{model}");
    }
}

#[test]
fn firmware_that_cannot_start_such_guests_is_refused_with_a_reason() {
    let error = |firmware: &[u8]| launch_digest(&launch(firmware)).unwrap_err().to_string();
    let offset = METADATA_OFFSET.to_le_bytes();
    let all = [(METADATA, &offset[..]), (RESET_BLOCK, &[0; 4]), (HASHES_ADDRESS, &[0, 0x0c, 0x81, 0])];
    assert!(error(&firmware_with(&SECTIONS, &all[1..])).contains("expected SEV metadata in the firmware"));
    assert!(error(&firmware_with(&SECTIONS, &all[..2])).contains("an address for kernel hashes"));
    assert!(error(&firmware_with(&SECTIONS[..4], &all)).contains("a page for kernel hashes"));
    let without_reset = [all[0], all[2]];
    assert!(error(&firmware_with(&SECTIONS, &without_reset)).contains("an SEV-ES reset block"));
    let no_room = [all[0], all[1], (HASHES_ADDRESS, &[0xff, 0x0f, 0x81, 0][..])];
    assert!(error(&firmware_with(&SECTIONS, &no_room)).contains("room for 168 bytes"));
    for (section, reason) in [
        ((0x80_0000, 0x1000, 7), "type: expected 1 to 4 or 16, found 7"),
        ((0x80_0001, 0x1000, 1), "whole pages"),
        ((0x80_0000, 0x1001, 1), "whole pages"),
        ((0x80_0000, 0xffff_f000, 1), "128 MiB at most"),
        ((0x80_0000, 0x2000, 0x10), "kernel hashes: expected 4096, found 8192"),
    ] {
        let found = error(&firmware_with(&[section, (0x81_0000, 0x1000, 0x10)], &all));
        assert!(found.contains(reason), "{found}");
    }
    let mut other = firmware_with(&SECTIONS, &all);
    let start = other.len() - 0x800;
    other[start + 8] = 2;
    assert!(error(&other).contains("version: expected 1, found 2"));
    other[start] = b'B';
    assert!(error(&other).contains("expected ASEV, found BSEV"));
    let beyond = [(METADATA, &[0x00, 0x00, 0x01, 0x00][..]), all[1], all[2]];
    assert!(error(&firmware_with(&SECTIONS, &beyond)).contains("within the image"));
    let short = [(METADATA, &[20, 0, 0, 0][..]), all[1], all[2]];
    let mut truncated = firmware_with(&SECTIONS, &short);
    let end = truncated.len();
    truncated[end - 20..].copy_from_slice(&metadata(1, &SECTIONS)[..20]);
    assert!(error(&truncated).contains("SEV metadata"), "{}", error(&truncated));
}

#[test]
fn arguments_out_of_range_are_refused() {
    let firmware = firmware();
    let base = launch(&firmware);
    for vcpus in [0, 4097, u32::MAX] {
        let error = launch_digest(&Launch { vcpus, ..base.clone() }).unwrap_err();
        assert_eq!(
            error,
            MeasureError::Argument { what: "vCPUs", expected: "1 to 4096", found: vcpus.into() }
        );
    }
    let error = launch_digest(&Launch { guest_features: 0x20, ..base }).unwrap_err();
    assert!(error.to_string().contains("bit 0 set"), "{error}");
}

#[test]
fn guids_are_those_of_their_text() {
    let text = |guid: &Guid| {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *guid;
        encode(&[&[d, c, b, a, f, e, h, g], &rest[..]].concat())
    };
    assert_eq!(text(&METADATA), "dc886566984a4798a75e5585a7bf67cc");
    assert_eq!(text(&RESET_BLOCK), "00f771de1a7e4fcb890e68c77e2fb44e");
    assert_eq!(text(&HASHES_ADDRESS), "7255371f3a3b4b04927b1da6efa8d454");
    assert_eq!(text(&HASHES_TABLE), "9438d6064f224cc9b479a793d411fd21");
    assert_eq!(text(&HASHES_APPEND), "97d02dd8bd204c94aa78e7714d36ab2a");
    assert_eq!(text(&HASHES_INITRD), "44baf7313a2f4bd79af141e29169781d");
    assert_eq!(text(&HASHES_KERNEL), "4de79437abd2427fb835d5b172d2045b");
}

#[test]
fn damaged_firmware_never_panics() {
    let good = firmware();
    let interesting = good.len() - 0x900;
    for at in interesting..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0xff;
        let _ = launch_digest(&launch(&damaged));
    }
    assert!(decode_array::<48>(&hex(&launch(&good))).is_ok());
}

use super::*;
use crate::digest::{decode_array, encode};
use crate::tdx::measure::tests::{Entry, firmware_of};

/// Where the volume of variables ends in a build of 4 MiB.
const VOLUME: u32 = 0x8_4000;

/// The memory of builds of 2022 to 2024, as dstack's have it.
const MEMORY: [Entry; 4] = [
    (0, 0, 0x81_0000, 0x1_0000, TEMP_MEM, 0),
    (0, 0, 0x80_b000, 0x2000, TEMP_MEM, 0),
    (0, 0, 0x80_9000, 0x2000, TD_HOB, 0),
    (0, 0, 0x80_0000, 0x6000, TEMP_MEM, 0),
];

/// A build whose volume of variables is empty: a header, then erased flash, with the working space of later writes in it.
fn firmware(memory: &[Entry]) -> Vec<u8> {
    let volume = (0, VOLUME, 0xffc0_0000, VOLUME.into(), CFV, 0);
    let mut image = firmware_of(VOLUME as usize + 0x2000, &[&[volume], memory].concat());
    image[..VOLUME as usize].fill(0xff);
    image[..16].fill(0);
    image[16..0x64].copy_from_slice(
        b"\x8d\x2b\xf1\xff\x96\x76\x8b\x4c\xa9\x85\x27\x47\x07\x5b\x4f\x50\0\x40\x08\0\0\0\0\0\
          _FVH\xff\xfe\x04\0\x48\0\xaf\xb8\0\0\0\x02\x84\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\
          \x78\x2c\xf3\xaa\x7b\x94\x9a\x43\xa1\x80\x2e\x14\x4e\xc3\x77\x92\xb8\xff\x03\0\x5a\xfe\0\0\0\0\0\0",
    );
    image[0x4_1000..0x4_1020].copy_from_slice(
        b"\x2b\x29\x58\x9e\x68\x7c\x7d\x49\xa0\xce\x65\0\xfd\x9f\x1b\x95\x2c\xaf\x2c\x64\xfe\xff\xff\xff\
          \xe0\x0f\0\0\0\0\0\0",
    );
    image
}

/// RTMR0 of quotes of hardware that dstack publishes (Apache-2.0; verifier/fixtures in its repository: tdx-lite-getquote.json with
/// 2 GiB of memory, quote-report.json with 64 GiB), and the digests in their event logs of what QEMU made ACPI tables of.
const HARDWARE: [(u64, [&str; 3], &str); 2] = [
    (
        2 << 30,
        [
            "095d04cf26fe03aef6e3561fa24c1aa1cea93f4aeaf563b1f9f7616184c53454875925759434769cec2490acb563a337",
            "8d9a4d4777a1bc77ecd9d8d37a4628129a80052a510320159a20a923bd07a0e90d8d1f2e1ebf088992b25f0d0fa672ef",
            "3070721e169bc41884724cb0e6b3082e1baf249083d8b389181ba50b9afa951057876c380b8870e8c2facf2eff67a2b6",
        ],
        "f8438db36b96f85d8752ff7f24a89ec05c79ec9eda2ba732c897fb970ca429365b7471b1c054cb84f17b1c2b23ba6640",
    ),
    (
        64 << 30,
        [
            "2065dd48d647e4377db277ba203526901a17845e93e0df4c2dfc3ce136e0910324ead1e1c86b8d90c2acdf9c85ffac53",
            "772b0169c66b52e4453fff9e3c6257635ea950ebcc8edd7ef2e2f8241cf6a155f39df01a7c7a194b6bc0abe5de11861d",
            "abfb2256644b5786eefdcb92303d2008c36cb9500d98997e215ef5080745d4bf2e5b3629090918e193e7f05b173d48c5",
        ],
        "2e3843265f8ecdd4e2282694747f6f2f111605c33f2a8882f5734ee6f3a6ce63d8f34aeef06093dcda76fa5f9d33d8d6",
    ),
];

#[test]
fn rtmr0_is_what_quotes_of_hardware_have() {
    for (memory, acpi, expected) in HARDWARE {
        let acpi = acpi.map(|digest| decode_array::<48>(digest).unwrap().into()).to_vec();
        let found = values(&firmware(&MEMORY), memory, &acpi).unwrap();
        // That firmware is built without Secure Boot.
        assert_eq!(found[1].value.to_string(), expected, "{memory:#x}");
        assert_ne!(found[0].value, found[1].value);
    }
}

#[test]
fn the_volume_of_variables_is_what_hardware_measured_of_an_empty_one() {
    // Debian's OVMF_VARS_4M.fd has the same digest, of 2022.11 and of 2025.02.
    let image = firmware(&MEMORY);
    let firmware = Firmware::parse(&image).unwrap();
    assert_eq!(
        encode(&Sha384::digest(variables(&sections(&firmware).unwrap()).unwrap())),
        "344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790"
    );
}

#[test]
fn memory_and_every_file_matter() {
    let image = firmware(&MEMORY);
    let value = |memory: u64, files: &[&[u8]]| rtmr0(&image, memory, files).unwrap()[0].value;
    let base = value(2 << 30, &[b"script", b"tables"]);
    assert_eq!(base, value(2 << 30, &[b"script", b"tables"]));
    for (memory, files) in [
        (3 << 30, [b"script".as_slice(), b"tables"]),
        (2 << 30, [b"script", b"other"]),
        (2 << 30, [b"other", b"tables"]),
        (2 << 30, [b"tables", b"script"]),
    ] {
        assert_ne!(value(memory, &files), base, "{memory:#x} {files:?}");
    }
}

#[test]
fn memory_above_the_hole_comes_at_4_gib() {
    let image = firmware(&MEMORY[2..3]);
    let firmware = Firmware::parse(&image).unwrap();
    let sections = sections(&firmware).unwrap();
    let list = |memory: u64| -> Vec<_> {
        let found = ranges(&sections, memory).unwrap();
        found.into_iter().map(|range| (range.kind, range.start, range.end)).collect()
    };
    let own = [(UNACCEPTED, 0, 0x80_9000), (SYSTEM, 0x80_9000, 0x80_b000)];
    assert_eq!(list(SPLIT_FROM - 1), [&own[..], &[(UNACCEPTED, 0x80_b000, SPLIT_FROM - 1)]].concat());
    let split = [(UNACCEPTED, 0x80_b000, LOW), (UNACCEPTED, FOUR_GIB, FOUR_GIB + SPLIT_FROM - LOW)];
    assert_eq!(list(SPLIT_FROM), [&own[..], &split].concat());
    assert_eq!(list(0x80_b000), own);
}

#[test]
fn firmware_of_which_rtmr0_does_not_follow_is_refused_with_a_reason() {
    let error = |image: &[u8], memory| rtmr0(image, memory, &[b""]).unwrap_err().to_string();
    let good = firmware(&MEMORY);
    assert!(error(&good, 1 << 20).contains("below 0x100000, where memory ends, found 0x800000 to"));
    let mut keys = good.clone();
    keys[VOLUME_HEADERS..VOLUME_HEADERS + 2].copy_from_slice(&[0xaa, 0x55]);
    assert!(
        error(&keys, 2 << 30).contains("expected an empty one, found variables: use a build without keys")
    );
    for (memory, reason) in [
        (vec![], "list of memory (TD HOB), found none"),
        (vec![MEMORY[2]; 2], "apart from each other"),
        (vec![MEMORY[2], (0, 0, 0x90_0000, 0x1000, TD_HOB, 0)], "list of memory (TD HOB), found several"),
    ] {
        let found = error(&firmware(&memory), 2 << 30);
        assert!(found.contains(reason), "{found}");
    }
    let none = firmware_of(0x4000, &MEMORY);
    assert!(error(&none, 2 << 30).contains("expected a volume of variables (CFV), found none"));
    let short = firmware_of(0x4000, &[&[(0, 0x10, 0xffc0_0000, 0x1000, CFV, 0)], &MEMORY[..]].concat());
    assert!(error(&short, 2 << 30).contains("expected one with its headers, found 16 bytes"));
}

/// A command that has room made for a file.
fn allocate(name: &str) -> Vec<u8> {
    let mut command = ALLOCATE.to_le_bytes().to_vec();
    command.extend_from_slice(name.as_bytes());
    command.resize(COMMAND, 0);
    command
}

#[test]
fn a_script_names_the_files_in_the_order_of_measuring() {
    let names = ["etc/acpi/rsdp", "etc/tpm/log", "etc/acpi/tables"];
    // A pointer to be put in, and room for more commands.
    let (mut pointer, end) = (allocate(names[0]), vec![0; COMMAND]);
    pointer[0] = 2;
    let script = [allocate(names[0]), allocate(names[1]), pointer, allocate(names[2]), end].concat();
    assert_eq!(acpi_files(&script).unwrap(), names);
}

#[test]
fn what_is_no_script_is_refused_and_no_name_leaves_the_folder() {
    let error = |script: &[u8]| acpi_files(script).unwrap_err().to_string();
    assert!(error(&[]).contains("expected files for ACPI tables, found none"));
    assert!(error(&[0; COMMAND]).contains("found none"));
    assert!(error(&[0; COMMAND + 4]).contains("expected commands of 128 bytes, found one of 4"));
    for name in ["", "/etc/shadow", "etc/../../x", "etc//x", "..", "etc/a b", "etc\\x"] {
        let found = error(&allocate(name));
        assert!(found.contains("expected files such as etc/acpi/tables"), "{name}: {found}");
    }
}

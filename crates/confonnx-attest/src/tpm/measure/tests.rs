use std::process::Command;

use super::*;
use crate::image::pe::Image;
use crate::image::uki::VARYING;

/// An image with those sections: 512 bytes of headers, everything aligned to 512.
fn image(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    let put = |bytes: &mut Vec<u8>, at: usize, value: u32, len: usize| {
        bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    };
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    put(&mut bytes, 0x44, 0x8664, 2);
    put(&mut bytes, 0x46, sections.len() as u32, 2);
    put(&mut bytes, 0x54, 240, 2);
    put(&mut bytes, 0x56, 0x0002, 2);
    let optional = 0x58;
    put(&mut bytes, optional, 0x20b, 2);
    put(&mut bytes, optional + 16, 0x1000, 4);
    put(&mut bytes, optional + 32, 0x1000, 4);
    put(&mut bytes, optional + 36, 512, 4);
    put(&mut bytes, optional + 60, 1024, 4);
    put(&mut bytes, optional + 68, 10, 2);
    put(&mut bytes, optional + 108, 16, 4);
    let mut address = 0x1000;
    for (i, (name, contents)) in sections.iter().enumerate() {
        let header = optional + 240 + 40 * i;
        bytes[header..header + name.len()].copy_from_slice(name.as_bytes());
        let start = bytes.len() as u32;
        let aligned = contents.len().next_multiple_of(512);
        put(&mut bytes, header + 8, contents.len() as u32, 4);
        put(&mut bytes, header + 12, address, 4);
        put(&mut bytes, header + 16, aligned as u32, 4);
        put(&mut bytes, header + 20, start, 4);
        bytes.extend_from_slice(contents);
        bytes.resize(start as usize + aligned, 0);
        address += (aligned as u32).next_multiple_of(0x1000);
    }
    put(&mut bytes, optional + 56, address, 4);
    bytes
}

const SDMAGIC: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####\0");

fn sample() -> Vec<u8> {
    let kernel = image(&[(".text", b"the kernel")]);
    // The order in the file is not that of measuring.
    image(&[
        (".initrd", &[7; 3000]),
        SDMAGIC,
        (".osrel", b"ID=confonnx\n"),
        (".cmdline", b"console=ttyS0 quiet\0"),
        (".linux", &kernel),
        (".pcrpkey", b"a public key"),
        (".pcrsig", b"a signature"),
        (".sbat", b"sbat,1,..."),
    ])
}

fn contents(image: &[u8], name: &str) -> Vec<u8> {
    Image::parse(image).unwrap().section(name).unwrap().unwrap().into_owned()
}

#[test]
fn pcr_11_is_what_systemd_measure_says() {
    let values = uki(&sample()).unwrap().image[&11].clone();
    let values: Vec<_> = values.iter().map(|value| value.value.to_string()).collect();
    // As systemd-measure 252.39 computes them, without phases and after each.
    let expected = [
        "68ed24f40eac719e162ec5b867668ae11645cb4f5cf6ad1621ba0a124fe0c0c1",
        "441f33cfdfedad2a3b485c0d5f7a72a18c6aa852ecc031e73a96740e3e2ebc8d",
        "f9d835428131c0f40f59fab9aa3ff573c7463a57a1af2636bb53c5a831bde8a1",
        "dcadbc773bdd64904db62a09724bc1d332cc8ad005ff983d2bb95ddcaa1b2664",
        "ffc59aa2729c1e961bc755602b8eba9ed7a692561eb182e6a6231fa8dc0d110c",
    ];
    assert_eq!(values, expected);
    if let Some(found) = systemd_measure(&sample()) {
        assert_eq!(values, found);
    }
}

#[test]
fn the_authenticode_digest_is_what_pesign_says_signed_or_not() {
    let digest =
        |bytes: &[u8]| Hex::<32>(Image::parse(bytes).unwrap().authenticode::<Sha256>().into()).to_string();
    // As `pesign -h` 0.112 computes it, which also agrees on Debian's linuxx64.efi.stub.
    let expected = "d9945382ce6c799c468124f4230293944cbf5a6b3ef4849e7676007dab64c256";
    assert_eq!(digest(&sample()), expected);
    let mut signed = sample();
    let (entry, len) = (0x58 + 112 + 32, u32::try_from(signed.len()).unwrap());
    signed[entry..entry + 4].copy_from_slice(&len.to_le_bytes());
    signed[entry + 4] = 16;
    signed[0x58 + 64] = 0xaa;
    signed.extend([0x5a; 16]);
    assert_eq!(digest(&signed), expected);
    // Bytes after the sections count, unless they are the signature.
    assert_ne!(digest(&[sample(), vec![0; 16]].concat()), expected);
}

#[test]
fn pcr_4_has_the_image_and_may_have_the_kernel_in_it() {
    let values = uki(&sample()).unwrap().image[&4].clone();
    let extend =
        |pcr: [u8; 32], digest: [u8; 32]| -> [u8; 32] { Sha256::digest([pcr, digest].concat()).into() };
    let action = Sha256::digest("Calling EFI Application from Boot Option").into();
    let started = extend(extend([0; 32], action), Sha256::digest([0; 4]).into());
    let loaded = extend(started, Image::parse(&sample()).unwrap().authenticode::<Sha256>().into());
    let kernel = Image::parse(&contents(&sample(), ".linux")).unwrap().authenticode::<Sha256>().into();
    assert_eq!(
        values.iter().map(|value| value.value.0).collect::<Vec<_>>(),
        [loaded, extend(loaded, kernel)]
    );
    // A kernel that is no EFI program is never loaded as one.
    let plain = image(&[(".linux", b"an ELF file"), SDMAGIC]);
    assert_eq!(uki(&plain).unwrap().image[&4].len(), 1);
}

/// Values of boots in QEMU 7.2, read from its TPM: with OVMF 2022.11 and, the second of PCR 7, with Debian's OVMF.fd of 2025.02,
/// which is built without Secure Boot.
#[test]
fn what_the_machine_decides_is_what_a_plain_one_said() {
    let values = uki(&sample()).unwrap().plain_machine;
    let none = "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969";
    let expected = [
        (2, none),
        (3, none),
        (5, "a5ceb755d043f32431d63e39f5161464620a3437280494b5850dc1b47cc074e0"),
        (6, none),
        (7, "65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068"),
    ];
    let found: Vec<_> = values.iter().map(|(index, values)| (*index, values[0].value.to_string())).collect();
    assert_eq!(found, expected.map(|(index, value)| (index, value.to_owned())));
    assert_eq!(
        values[&7][1].value.to_string(),
        "b5710bf57d25623e4019027da116821fa99f5c81e9e38b87671cc574f9281439"
    );
}

#[test]
fn pcr_9_has_what_the_kernel_in_the_image_measures() {
    let value = |kernel: &[u8]| {
        let sections =
            [(".linux", kernel), (".cmdline", b"a\nb\n".as_slice()), (".initrd", b"files"), SDMAGIC];
        uki(&image(&sections)).unwrap().image[&9][0].value.0
    };
    let extended = |events: &[&[u8]]| {
        events
            .iter()
            .fold([0; 32], |pcr, event| Sha256::digest([pcr, Sha256::digest(event).into()].concat()).into())
    };
    let (options, files): (&[u8], &[u8]) = (b"a\0 \0b\0\0\0", b"files");
    assert_eq!(value(b"an old kernel"), [0; 32]);
    assert_eq!(value(b"..Linux initrd.."), extended(&[files]));
    assert_eq!(value(b"..LOADED_IMAGE::LoadOptions.Linux initrd.."), extended(&[options, files]));
}

/// The value is computed by Python's hashlib of an archive as a stub of version 257 made it in a boot.
#[test]
fn pcr_9_has_the_name_of_the_system_as_a_file_from_257_on() {
    let value = |version: &str| {
        let stub = format!("#### LoaderInfo: systemd-stub {version} ####");
        let sections: [(&str, &[u8]); 4] = [
            (".linux", b"Linux initrd"),
            (".initrd", b"files"),
            (".osrel", b"ID=confonnx\n"),
            (".sdmagic", stub.as_bytes()),
        ];
        uki(&image(&sections)).unwrap().image[&9][0].value.to_string()
    };
    assert_eq!(value("257.13"), "b27e464b343aae5c03cae1aa112c33e2dcb1dbdae5fc7dcded25b4bbdfb1cc6f");
    assert_ne!(value("254.26"), value("257.13"));
}

#[test]
fn what_nothing_extends_is_zero() {
    let values = uki(&sample()).unwrap().image;
    for index in [8, 12, 13, 14] {
        assert_eq!(
            values[&index].iter().map(|value| value.value.0).collect::<Vec<_>>(),
            [[0; 32]],
            "{index}"
        );
    }
}

#[test]
fn sections_count_from_the_version_of_the_stub_that_measures_them() {
    let with = |version: &str, more: &[(&str, &[u8])]| {
        let magic = format!("#### LoaderInfo: systemd-stub {version} ####");
        let mut sections: Vec<(&str, &[u8])> = vec![(".linux", b"kernel"), (".sdmagic", magic.as_bytes())];
        sections.extend(more);
        uki(&image(&sections)).map(|measurement| measurement.image[&11][0].value)
    };
    let sbat: &[(&str, &[u8])] = &[(".sbat", b"sbat,1")];
    assert_eq!(with("252.39", &[]), with("252.39", sbat));
    assert_eq!(with("252.39", &[]), with("257", &[]));
    assert_ne!(with("257", &[]), with("257", sbat));
    for version in ["251", "253.1", ""] {
        assert!(matches!(with(version, &[]), Err(MeasureError::Malformed { .. })), "{version}");
    }
    for name in VARYING {
        assert!(with("257", &[(name, b"x")]).is_err(), "{name}");
    }
    assert!(with("257", &[(".linux", b"another")]).is_err());
}

#[test]
fn zeros_that_the_file_leaves_out_are_measured() {
    let mut bytes = image(&[(".linux", &[1; 512]), SDMAGIC]);
    let header = 0x58 + 240;
    bytes[header + 8..header + 12].copy_from_slice(&600_u32.to_le_bytes());
    assert_eq!(contents(&bytes, ".linux"), [[1; 512].as_slice(), &[0; 88]].concat());
    bytes[header + 11] = 0xff;
    assert!(uki(&bytes).is_err());
}

#[test]
fn damaged_images_are_refused_without_panic() {
    let good = sample();
    for len in 0..good.len() {
        assert!(uki(&good[..len]).is_err(), "{len}");
    }
    for (byte, bit) in (0..1024).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut bad = good.clone();
        bad[byte] ^= 1 << bit;
        let _ = uki(&bad);
    }
}

/// The values by systemd's own tool, if this machine has it.
fn systemd_measure(image: &[u8]) -> Option<Vec<String>> {
    const TOOL: &str = "/usr/lib/systemd/systemd-measure";
    if !std::path::Path::new(TOOL).exists() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(TOOL);
    command.args(["calculate", "--bank=sha256", "--phase=:"]);
    for end in 1..=PHASES.len() {
        command.arg(format!("--phase={}", PHASES[..end].join(":")));
    }
    for name in ["linux", "osrel", "cmdline", "initrd", "pcrpkey"] {
        let path = folder.path().join(name);
        std::fs::write(&path, contents(image, &format!(".{name}"))).unwrap();
        command.arg(format!("--{name}={}", path.display()));
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text.lines().filter_map(|line| line.strip_prefix("11:sha256=")).map(str::to_owned).collect())
}

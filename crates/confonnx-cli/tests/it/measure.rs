use std::fs;

use crate::{confonnx, stderr, stdout};

const MRENCLAVE: &str = "e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1";

fn sigstruct_view() -> String {
    format!(
        r#"{{"mr_signer": "{}", "mr_enclave": "{MRENCLAVE}", "isv_prod_id": 1, "isv_svn": 2, "debug_enclave": false}}"#,
        "51".repeat(32)
    )
}

#[test]
fn the_old_name_of_an_sgx_hash_is_written_too() {
    let folder = tempfile::tempdir().unwrap();
    let (view, out) = (folder.path().join("view.json"), folder.path().join("enclave_info.json"));
    fs::write(&view, sigstruct_view()).unwrap();
    let output = confonnx(&["measure", "sgx", view.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), String::new()), "{}", stderr(&output));
    let info: serde_json::Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(info["tee"], "sgx");
    assert_eq!((&info["enclave_hash"], &info["mrenclave"]), (&MRENCLAVE.into(), &MRENCLAVE.into()));
    assert_eq!(info["details"]["isv_svn"], 2);
}

#[test]
fn without_out_it_prints() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let register = |byte: &str| byte.repeat(48);
    let (zero, one, two) = (register("0a"), register("01"), register("02"));
    fs::write(
        file.path(),
        format!(r#"{{"Measurements": {{"PCR0": "{zero}", "PCR1": "{one}", "PCR2": "{two}"}}}}"#),
    )
    .unwrap();
    let output = confonnx(&["measure", "nitro", file.path().to_str().unwrap()]);
    let info: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((info["tee"].as_str(), info["details"]["pcr2"].as_str()), (Some("nitro"), Some(&*two)));
    assert_eq!(info["enclave_hash"].as_str().unwrap().len(), 96);
    // The same of an image.
    let image = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/eif/signed.eif");
    let expected: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(image.replace(".eif", ".json")).unwrap()).unwrap();
    let output = confonnx(&["measure", "nitro", image]);
    let info: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    for (name, pcr) in [("pcr0", "PCR0"), ("pcr1", "PCR1"), ("pcr2", "PCR2"), ("pcr8", "PCR8")] {
        assert_eq!(info["details"][name], expected[pcr], "{name}");
    }
}

#[test]
fn what_cannot_be_measured_says_why() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), vec![0; 8192]).unwrap();
    let path = file.path().to_str().unwrap();
    let failed = |args: &[&str]| {
        let output = confonnx(args);
        (output.status.code(), stderr(&output))
    };
    let (code, error) =
        failed(&["measure", "snp", "--firmware", path, "--vcpus", "1", "--vcpu-type", "EPYC"]);
    assert_eq!(code, Some(1));
    assert!(error.contains(path) && error.contains("expected OVMF's GUID table in the firmware"), "{error}");
    let (code, error) = failed(&["measure", "tdx", "--firmware", path]);
    assert_eq!(code, Some(1));
    assert!(error.contains("expected OVMF's GUID table in the firmware"), "{error}");
    let (code, error) = failed(&["measure", "sgx", path]);
    assert_eq!(code, Some(1));
    assert!(error.contains("expected a SIGSTRUCT of 1808 bytes"), "{error}");

    let (code, error) =
        failed(&["measure", "snp", "--firmware", path, "--vcpus", "1", "--vcpu-type", "Skylake"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("EPYC-Milan"), "{error}");
    assert_eq!(failed(&["measure", "snp", "--firmware", path, "--vcpus", "1"]).0, Some(2));
    assert_eq!(failed(&["measure", "tdx", "--firmware", path, "--rtmrs", "00"]).0, Some(2));
}

/// The smallest OVMF image that has SEV metadata.
fn firmware() -> Vec<u8> {
    firmware_with("dc886566984a4798a75e5585a7bf67cc", b"ASEV\0\0\0\0\x01")
}

/// The smallest OVMF image that has those metadata: a table of GUIDs at its end.
fn firmware_with(name: &str, metadata: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 8192];
    let metadata_at = 4096;
    image[metadata_at..metadata_at + metadata.len()].copy_from_slice(metadata);
    let end = image.len() - 32;
    let guid = |text: &str| -> Vec<u8> {
        let bytes: Vec<u8> =
            (0..32).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect();
        let swap = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        swap.iter().map(|&i| bytes[i]).collect()
    };
    // From the end: the footer, then the entry for the metadata before it.
    let offset = u32::try_from(image.len() - metadata_at).unwrap();
    let entry = [&offset.to_le_bytes()[..], &22_u16.to_le_bytes(), &guid(name)].concat();
    let total = u16::try_from(entry.len() + 18).unwrap();
    let footer = [&total.to_le_bytes()[..], &guid("96b582de1fb245f7baeaa366c55a082d")].concat();
    image[end - footer.len()..end].copy_from_slice(&footer);
    image[end - footer.len() - entry.len()..end - footer.len()].copy_from_slice(&entry);
    image
}

#[test]
fn a_measurement_of_the_firmware_alone_is_no_enclave_hash_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("OVMF.fd"), folder.path().join("enclave_info.json"));
    fs::write(&path, firmware()).unwrap();
    let (path, out) = (path.to_str().unwrap(), out.to_str().unwrap());
    let common = ["measure", "snp", "--firmware", path, "--vcpus", "1", "--vcpu-type", "EPYC-v4"];
    let run = |args: &[&str]| confonnx(&[&common[..], args].concat());
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("WARNING: without --kernel this measurement covers the firmware alone"));
    let printed: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(printed.get("enclave_hash").is_none() && printed["firmware_only_measurement"].is_string());
    let output = run(&["--out", out]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("refused to write an enclave_info.json of the firmware alone"));
    assert!(!std::path::Path::new(out).exists());
    let output = run(&["--out", out, "--firmware-only"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let info: serde_json::Value = serde_json::from_slice(&fs::read(out).unwrap()).unwrap();
    assert_eq!(info["enclave_hash"], printed["firmware_only_measurement"]);
    let unknown =
        confonnx(&["measure", "snp", "--firmware", path, "--vcpus", "1", "--vcpu-type", "EPYC-v99"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", stderr(&unknown));
}

/// A program for EFI, all of whose sections are in the file: each `(name, contents)`.
fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let put =
        |bytes: &mut Vec<u8>, at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(&mut bytes, 0, b"MZ");
    put(&mut bytes, 0x3c, &[0x40]);
    put(&mut bytes, 0x40, b"PE\0\0\x64\x86");
    put(&mut bytes, 0x46, &[u8::try_from(sections.len()).unwrap()]);
    put(&mut bytes, 0x54, &[240]);
    put(&mut bytes, 0x58, &0x20b_u16.to_le_bytes());
    put(&mut bytes, 0x58 + 60, &1024_u32.to_le_bytes());
    put(&mut bytes, 0x58 + 108, &[16]);
    for (index, (name, contents)) in sections.iter().enumerate() {
        let (header, start) = (0x58 + 240 + 40 * index, u32::try_from(bytes.len()).unwrap());
        let length = u32::try_from(contents.len()).unwrap();
        put(&mut bytes, header, name.as_bytes());
        for (at, value) in [(8, length), (16, length), (20, start)] {
            put(&mut bytes, header + at, &value.to_le_bytes());
        }
        bytes.extend_from_slice(contents);
    }
    bytes
}

#[test]
fn a_kernel_image_gives_sections_of_policies() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.efi");
    let stub = (".sdmagic", b"#### LoaderInfo: systemd-stub 257.13 ####".as_slice());
    fs::write(&image, program(&[(".linux", b"kernel, Linux initrd"), (".initrd", b"files"), stub])).unwrap();
    let image = image.to_str().unwrap();
    let pcrs = |args: &[&str]| {
        let output = confonnx(&[&["measure", "uki", image], args].concat());
        let text = stdout(&output);
        text.lines().filter_map(|line| line.strip_suffix(" = [")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(pcrs(&[]), "4 8 9 11 12 13 14");
    assert_eq!(pcrs(&["--plain-machine"]), "2 3 4 5 6 7 8 9 11 12 13 14");
    assert_eq!(confonnx(&["measure", "tdx", "--firmware", image, "--kernel", image]).status.code(), Some(1));
}

#[test]
fn rtmr0_of_a_tdx_guest_follows_from_memory_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // Metadata of a volume of variables and a list of memory, each by data offset and length, address, size, kind, attributes.
    let numbers =
        [136, 1, 2, 0, 0x1000, 0xffff_e000, 0, 0x1000, 0, 1, 0, 0, 0, 0x80_9000, 0, 0x2000, 0, 2, 0];
    let metadata = [b"TDVF".to_vec(), numbers.iter().flat_map(|number: &u32| number.to_le_bytes()).collect()];
    let mut firmware = firmware_with("e47a6535984a4798865e4685a7bf8ec2", &metadata.concat());
    firmware[0x64..0x66].fill(0xff);
    fs::write(path("OVMF.fd"), firmware).unwrap();
    let stub = (".sdmagic", b"#### LoaderInfo: systemd-stub 257.13 ####".as_slice());
    fs::write(path("image.efi"), program(&[(".linux", b"kernel"), stub])).unwrap();
    let mut script = b"\x01\0\0\0etc/acpi/tables".to_vec();
    script.resize(128, 0);
    for (name, contents) in [("etc/table-loader", script.as_slice()), ("etc/acpi/tables", b"tables")] {
        fs::create_dir_all(folder.path().join("acpi").join(name)).unwrap();
        fs::write(folder.path().join("acpi").join(name).join("raw"), contents).unwrap();
    }
    let (ovmf, image, acpi) = (path("OVMF.fd"), path("image.efi"), path("acpi"));
    let run = |args: &[&str]| {
        let output = confonnx(&[&["measure", "tdx", "--firmware", &ovmf, "--kernel", &image], args].concat());
        (output.status.code(), stdout(&output), stderr(&output))
    };
    let registers = |text: &str| {
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_suffix(" = [")).collect();
        (names.join(" "), text.contains("needs rtmr0 besides"))
    };
    let (_, without, _) = run(&[]);
    assert_eq!(registers(&without), ("mr_td rtmr1 rtmr2 rtmr3".to_owned(), true));
    let (code, policy, error) = run(&["--memory", "2G", "--acpi", &acpi]);
    assert_eq!((code, error), (Some(0), String::new()));
    assert_eq!(registers(&policy), ("mr_td rtmr0 rtmr1 rtmr2 rtmr3".to_owned(), false));
    assert_eq!(run(&["--memory", "2048M", "--acpi", &acpi]).1, policy);
    assert_ne!(run(&["--memory", "4G", "--acpi", &acpi]).1, policy);
    for size in ["2", "G", "0G", "-1G", "2GiB", "99999999T"] {
        let (code, _, error) = run(&[&format!("--memory={size}"), "--acpi", &acpi]);
        assert!(code == Some(2) && error.contains("such as 2G"), "{size}: {error}");
    }
    assert_eq!((run(&["--memory", "2G"]).0, run(&["--acpi", &acpi]).0), (Some(2), Some(2)));
    fs::remove_file(path("acpi/etc/acpi/tables/raw")).unwrap();
    let (code, _, error) = run(&["--memory", "2G", "--acpi", &acpi]);
    assert_eq!(code, Some(1));
    assert!(error.contains("expected a copy of /sys/firmware/qemu_fw_cfg/by_name in"), "{error}");
    assert!(error.contains("etc/acpi/tables/raw"), "{error}");
}

#![no_main]

use confonnx_attest::measure::{snp, tdx};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|firmware: &[u8]| {
    for (kernel, vmm) in [
        (Some(snp::Kernel { image: b"kernel", initrd: b"", append: "" }), snp::Vmm::Qemu),
        (None, snp::Vmm::Ec2),
    ] {
        let launch =
            snp::Launch { firmware, kernel, vcpus: 2, cpu_signature: 0x00a0_0f11, vmm, guest_features: 1 };
        let _ = snp::launch_digest(&launch);
    }
    let _ = tdx::mrtd(firmware, tdx::PageOrder::PageByPage);
    let _ = tdx::rtmr0(firmware, 2 << 30, &[firmware]);
    let _ = tdx::acpi_files(firmware);
});

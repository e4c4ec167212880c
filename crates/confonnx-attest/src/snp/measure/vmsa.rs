//! The initial registers of a virtual CPU as hardware measures them (AMD APM volume 2, table B-4).

use super::{Launch, Vmm};
use crate::image::ovmf::PAGE;

/// The address at which the first virtual CPU starts.
pub(super) const BOOT_IP: u32 = 0xffff_fff0;

/// The save area of a virtual CPU that starts at `ip`.
pub(super) fn page(launch: &Launch<'_>, ip: u32) -> [u8; PAGE] {
    let mut page = Page([0; PAGE]);
    let registers = match launch.vmm {
        Vmm::Qemu => {
            Registers { cs: 0x9b, ss: 0x93, tr: 0x8b, rdx: launch.cpu_signature, mxcsr: 0x1f80, fcw: 0x37f }
        }
        Vmm::Ec2 => {
            let cs = if ip == BOOT_IP { 0x9a } else { 0x9b };
            Registers { cs, ss: 0x92, tr: 0x83, rdx: 0x600, mxcsr: 0, fcw: 0 }
        }
    };
    page.segment(0x00, 0, 0x93, 0); // ES
    page.segment(0x10, 0xf000, registers.cs, ip & 0xffff_0000);
    page.segment(0x20, 0, registers.ss, 0);
    page.segment(0x30, 0, 0x93, 0); // DS
    page.segment(0x40, 0, 0x93, 0); // FS
    page.segment(0x50, 0, 0x93, 0); // GS
    page.segment(0x60, 0, 0, 0); // GDTR
    page.segment(0x70, 0, 0x82, 0); // LDTR
    page.segment(0x80, 0, 0, 0); // IDTR
    page.segment(0x90, 0, registers.tr, 0);
    page.u64(0xd0, 0x1000); // EFER: KVM sets SVME
    page.u64(0x148, 0x40); // CR4: KVM sets MCE
    page.u64(0x158, 0x10); // CR0
    page.u64(0x160, 0x400); // DR7
    page.u64(0x168, 0xffff_0ff0); // DR6
    page.u64(0x170, 2); // RFLAGS
    page.u64(0x178, u64::from(ip & 0xffff));
    page.u64(0x268, 0x0007_0406_0007_0406); // PAT
    page.u64(0x310, registers.rdx.into());
    page.u64(0x3b0, launch.guest_features);
    page.u64(0x3e8, 1); // XCR0
    page.put(0x408, &u32::to_le_bytes(registers.mxcsr));
    page.put(0x410, &u16::to_le_bytes(registers.fcw));
    page.0
}

/// The initial values in which VMMs differ.
struct Registers {
    cs: u16,
    ss: u16,
    tr: u16,
    rdx: u32,
    mxcsr: u32,
    fcw: u16,
}

struct Page([u8; PAGE]);

impl Page {
    /// A segment register with a limit of 64 KiB.
    fn segment(&mut self, offset: usize, selector: u16, attributes: u16, base: u32) {
        let [s0, s1] = selector.to_le_bytes();
        let [a0, a1] = attributes.to_le_bytes();
        let [b0, b1, b2, b3] = base.to_le_bytes();
        self.put(offset, &[s0, s1, a0, a1, 0xff, 0xff, 0, 0, b0, b1, b2, b3, 0, 0, 0, 0]);
    }

    fn u64(&mut self, offset: usize, value: u64) {
        self.put(offset, &value.to_le_bytes());
    }

    fn put<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) {
        // All offsets are constants within the page.
        if let Some(place) = self.0.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) {
            *place = *bytes;
        }
    }
}

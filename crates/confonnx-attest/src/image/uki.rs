//! Unified kernel images (UAPI Group, Unified Kernel Image): what firmware, systemd-stub and Linux measure of one as it
//! boots, each event by its digest in the bank that the machine has.

use std::borrow::Cow;

use sha2::digest::{Digest, Output};

use super::pe::{Image, malformed};
use crate::image::MeasureError;

/// An image whose measurement does not depend on the machine.
pub(crate) struct Uki<'a> {
    image: Image<'a>,
    linux: Cow<'a, [u8]>,
    stub: u32,
}

/// Digests of events, in the order in which a register is extended by them.
pub(crate) type Events<D> = Vec<Output<D>>;

impl<'a> Uki<'a> {
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, MeasureError> {
        let image = Image::parse(file)?;
        let linux = image.section(LINUX)?.ok_or(MeasureError::Absent {
            file: "kernel image",
            what: "section .linux",
            hint: "give a unified kernel image, as ukify and dracut make it",
        })?;
        if let Some(name) = VARYING.into_iter().find(|name| image.has_section(name)) {
            return Err(malformed("sections", "none whose measurement depends on the machine", name));
        }
        let stub = image.stub_version()?;
        Ok(Self { image, linux, stub })
    }

    /// The program that the firmware starts.
    pub(crate) fn program<D: Digest>(&self) -> Output<D> {
        self.image.authenticode::<D>()
    }

    /// The kernel inside, which is a program for the firmware, too, if it has an EFI stub. Whether systemd-stub has the
    /// firmware load it depends on Secure Boot and version.
    pub(crate) fn kernel<D: Digest>(&self) -> Option<Output<D>> {
        Image::parse(&self.linux).ok().map(|kernel| kernel.authenticode::<D>())
    }

    /// What systemd-stub measures: name and contents of each section.
    pub(crate) fn sections<D: Digest>(&self) -> Result<Events<D>, MeasureError> {
        let mut events = Vec::new();
        for (name, since) in MEASURED {
            if let Some(contents) = self.image.section(name)?
                && self.stub >= since
            {
                events.push(D::digest([name.as_bytes(), &[0]].concat()));
                events.push(D::digest(&contents));
            }
        }
        Ok(events)
    }

    /// What the kernel's EFI stub measures: the command line (LoadOptions) in kernels of 2024 and later, and the initial file
    /// system (since 5.18). The kernel has the names of these events in it, by which they are told.
    pub(crate) fn linux<D: Digest>(&self) -> Result<Events<D>, MeasureError> {
        let mut events = Vec::new();
        if has(&self.linux, b"LOADED_IMAGE::LoadOptions")
            && let Some(options) = self.image.section(".cmdline")?
        {
            events.push(D::digest(load_options(&options)));
        }
        if has(&self.linux, b"Linux initrd")
            && let Some(initrd) = self.initrd()?
        {
            events.push(D::digest(&initrd));
        }
        Ok(events)
    }

    /// The initial file system as systemd-stub hands it to the kernel: with archives of some of the image's sections, each at a
    /// multiple of four bytes.
    fn initrd(&self) -> Result<Option<Vec<u8>>, MeasureError> {
        let Some(initrd) = self.image.section(".initrd")? else { return Ok(None) };
        let mut whole = Vec::new();
        if let Some(microcode) = self.image.section(".ucode")?
            && self.stub >= 256
        {
            whole.extend_from_slice(&microcode);
            align(&mut whole);
        }
        whole.extend_from_slice(&initrd);
        for (name, file, since) in EXTRA {
            if let Some(contents) = self.image.section(name)?
                && self.stub >= since
            {
                align(&mut whole);
                archive(&mut whole, file, &contents);
            }
        }
        Ok(Some(whole))
    }

    /// Whether systemd-stub measures where there is no TPM (EFI_CC_MEASUREMENT_PROTOCOL).
    pub(crate) fn stub_measures_without_tpm(&self) -> Result<bool, MeasureError> {
        Ok(self.image.section(".text")?.is_some_and(|code| knows_cc(&code)))
    }

    /// The same of the kernel, which does since 6.9.
    pub(crate) fn linux_measures_without_tpm(&self) -> bool {
        knows_cc(&self.linux)
    }
}

/// The value of a register that was reset, then extended by these.
pub(crate) fn extended<D: Digest>(events: impl IntoIterator<Item = Output<D>>) -> Output<D> {
    events.into_iter().fold(Output::<D>::default(), |value, event| {
        D::new().chain_update(value).chain_update(event).finalize()
    })
}

/// The command line as systemd-stub hands it to the kernel: UTF-16 with a zero at its end, controls as spaces.
fn load_options(section: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(section);
    let text = text.trim_end_matches('\0');
    let text = text.chars().map(|char| if char < ' ' { ' ' } else { char }).collect::<String>();
    text.trim_end().encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Adds an archive (cpio, newc) of the folder `.extra` with one file.
fn archive(whole: &mut Vec<u8>, file: &str, contents: &[u8]) {
    entry(whole, 1, 0o40_555, ".extra", &[]);
    entry(whole, 2, 0o100_444, &format!(".extra/{file}"), contents);
    whole.extend_from_slice(TRAILER);
}

fn entry(whole: &mut Vec<u8>, inode: usize, mode: usize, name: &str, contents: &[u8]) {
    whole.extend_from_slice(b"070701");
    // Owner and group, links, time, length, devices, length of the name with its zero, checksum.
    let name_len = name.len().saturating_add(1);
    for number in [inode, mode, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name_len, 0] {
        whole.extend_from_slice(format!("{number:08x}").as_bytes());
    }
    whole.extend_from_slice(name.as_bytes());
    whole.push(0);
    align(whole);
    whole.extend_from_slice(contents);
    align(whole);
}

fn align(whole: &mut Vec<u8>) {
    whole.resize(whole.len().next_multiple_of(4), 0);
}

/// Whether code has the GUID of EFI_CC_MEASUREMENT_PROTOCOL, 96751a3d-72f4-41a6-a794-ed5d0e67ae6b, as two numbers of 8
/// bytes, as compilers put it there.
fn knows_cc(code: &[u8]) -> bool {
    has(code, b"\x3d\x1a\x75\x96\xf4\x72\xa6\x41") && has(code, b"\xa7\x94\xed\x5d\x0e\x67\xae\x6b")
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

const LINUX: &str = ".linux";
/// The sections in the order in which the stub measures them, each with the first version of systemd-stub that does.
/// `.pcrsig` is not among them, since it signs the result.
const MEASURED: [(&str, u32); 10] = [
    (LINUX, 252),
    (".osrel", 252),
    (".cmdline", 252),
    (".initrd", 252),
    (".ucode", 256),
    (".splash", 252),
    (".dtb", 252),
    (".uname", 254),
    (".sbat", 254),
    (".pcrpkey", 252),
];
/// Sections of which the stub makes files for the system, in that order, with the file's name and the first version that does.
const EXTRA: [(&str, &str, u32); 3] = [
    (".pcrsig", "tpm2-pcr-signature.json", 252),
    (".pcrpkey", "tpm2-pcr-public-key.pem", 252),
    (".osrel", "os-release", 257),
];
/// The end of an archive.
const TRAILER: &[u8; 124] = b"07070100000000000000000000000000000000000000010000000000000000\
    000000000000000000000000000000000000000B00000000TRAILER!!!\0\0\0\0";
/// Sections among which the stub chooses by the machine or the menu.
pub(crate) const VARYING: [&str; 4] = [".profile", ".dtbauto", ".hwids", ".efifw"];

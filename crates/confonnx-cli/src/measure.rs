use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use confonnx_client::measure::{Predicted, UkiMeasurement, nitro, sgx, snp, tdx, uki};
use confonnx_client::{EnclaveInfo, Hex, Tee};
use serde_json::{Map, Value, json};

use crate::args::bytes;
use crate::{complain, print};

/// Predict what hardware will report of a server, for --enclave-hash
///
/// Needs no hardware, no network and no trust in the host that will run the server. Prints an enclave_info.json; for a
/// unified kernel image a section of a policy.
#[derive(Args)]
pub(crate) struct Measure {
    #[command(subcommand)]
    of: Of,
    /// File to write instead of stdout, such as enclave_info.json
    #[arg(long, value_name = "FILE", global = true, display_order = 100)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Of {
    Snp(Snp),
    Tdx(Tdx),
    /// An SGX enclave: MRENCLAVE as Gramine's build computed it
    Sgx {
        /// The .sig file that gramine-sgx-sign writes, or gramine-sgx-sigstruct-view's JSON
        file: PathBuf,
    },
    /// A unified kernel image: the PCRs that it decides, as a section of a policy for TPMs
    ///
    /// The firmware has to start the image itself, and nothing may accompany it (drop-ins, add-ons, credentials). The enclave
    /// hash of a TPM is over more PCRs, which depend on the machine.
    Uki {
        /// The image, an .efi file made with systemd-stub
        image: PathBuf,
        /// Expect a machine without option ROMs, partition table and Secure Boot, too (PCRs 2, 3, 5, 6 and 7), as deploy/vm/run
        /// has. 0 and 1 are the firmware and its settings
        #[arg(long)]
        plain_machine: bool,
    },
    /// An AWS Nitro enclave: PCR0 to PCR2, measured of its image, or as its build computed them
    Nitro {
        /// The enclave image (.eif), or what nitro-cli build-enclave printed
        file: PathBuf,
    },
}

/// An SEV-SNP guest: its launch digest
#[derive(Args)]
struct Snp {
    /// The OVMF image
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// Number of virtual CPUs
    #[arg(long, value_name = "N")]
    vcpus: u32,
    /// QEMU's CPU model: EPYC, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin, with or without version
    #[arg(long, value_name = "MODEL", value_parser = cpu_model, required_unless_present = "vcpu_signature", conflicts_with = "vcpu_signature")]
    vcpu_type: Option<u32>,
    /// The signature of another one: EAX of CPUID leaf 1
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    vcpu_signature: Option<u64>,
    /// Who starts the guest
    #[arg(long, value_enum, default_value_t = VmmName::Qemu)]
    vmm: VmmName,
    /// SEV_FEATURES; Linux 6.6 and later set bit 5 (0x21) unless told otherwise
    #[arg(long, value_name = "NUMBER", value_parser = number, default_value = "0x1")]
    guest_features: u64,
    /// The kernel, when the guest is started with kernel-hashes=on. Without it the launch digest covers the firmware alone:
    /// any disk boots under the same value
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Write an enclave_info.json though it covers the firmware alone: something else has to bind what boots after it
    #[arg(long, conflicts_with = "kernel")]
    firmware_only: bool,
    /// Its initial file system
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    append: Option<String>,
}

/// A TDX guest: MRTD, and, of a unified kernel image, RTMR0 to RTMR3; the enclave hash when all RTMRs are given
///
/// RTMR0 has the memory's size and what QEMU makes ACPI tables of, which --memory and --acpi say. It is predicted of OVMF up to
/// edk2-stable202502 and QEMU's machine q35 with -kernel; of others, read it off a boot that is known to be good.
#[derive(Args)]
struct Tdx {
    /// The OVMF image
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    /// The order in which the VMM measures pages
    #[arg(long, value_enum, default_value_t = Order::Page)]
    order: Order,
    /// RTMR0 to RTMR3
    #[arg(long, value_name = "HEX", num_args = 4)]
    rtmrs: Vec<Hex<48>>,
    /// A unified kernel image that the firmware starts: prints a section of a policy
    #[arg(long, value_name = "FILE", conflicts_with = "rtmrs")]
    kernel: Option<PathBuf>,
    /// The guest's memory, such as 2G or 2048M: predicts RTMR0
    #[arg(long, value_name = "SIZE", value_parser = memory, requires = "acpi")]
    memory: Option<u64>,
    /// A copy of /sys/firmware/qemu_fw_cfg/by_name of a guest with the same QEMU, firmware, processors, memory and devices
    #[arg(long, value_name = "FOLDER", requires_all = ["memory", "kernel"])]
    acpi: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum VmmName {
    Qemu,
    Ec2,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    /// Linux 6.16 and later, QEMU 9 and later
    Page,
    /// KVM and QEMU before they were merged upstream
    Section,
}

impl Measure {
    pub(crate) fn run(&self) -> Result<()> {
        let text = match &self.of {
            Of::Snp(snp) => snp.json(self.out.is_some())?,
            Of::Tdx(tdx) => tdx.json()?,
            Of::Sgx { file } => sgx::enclave_info(&bytes(file)?).with_context(|| unusable(file))?.to_json(),
            Of::Uki { image, plain_machine } => {
                tpm_section(&uki(&bytes(image)?).with_context(|| unusable(image))?, *plain_machine)
            }
            Of::Nitro { file } => {
                nitro::enclave_info(&bytes(file)?).with_context(|| unusable(file))?.to_json()
            }
        };
        match &self.out {
            Some(path) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
            None => Ok(print(text.trim_end())?),
        }
    }
}

impl Snp {
    /// An enclave_info.json, or, of the firmware alone, a value that nothing takes for an enclave hash.
    fn json(&self, to_file: bool) -> Result<String> {
        if self.kernel.is_some() {
            return Ok(self.info()?.to_json());
        }
        complain(FIRMWARE_ONLY);
        if self.firmware_only {
            return Ok(self.info()?.to_json());
        }
        if to_file {
            bail!(
                "refused to write an enclave_info.json of the firmware alone: give --kernel, --initrd and --append, or \
                 --firmware-only when something else binds what boots (a verity hash that the firmware checks)"
            );
        }
        let EnclaveInfo { tee, enclave_hash, details, .. } = self.info()?;
        let covers = json!({ "tee": tee, "firmware_only_measurement": enclave_hash, "details": details });
        Ok(serde_json::to_string_pretty(&covers)? + "\n")
    }

    fn info(&self) -> Result<EnclaveInfo> {
        let firmware = bytes(&self.firmware)?;
        let kernel = self.kernel.as_ref().map(|path| bytes(path)).transpose()?;
        let initrd = self.initrd.as_ref().map(|path| bytes(path)).transpose()?.unwrap_or_default();
        let append = self.append.as_deref().unwrap_or_default();
        let cpu_signature = match (self.vcpu_type, self.vcpu_signature) {
            (Some(signature), _) => signature,
            (None, signature) => signature
                .and_then(|signature| u32::try_from(signature).ok())
                .context("--vcpu-signature: expected 32 bits")?,
        };
        let (vmm, vmm_name) = match self.vmm {
            VmmName::Qemu => (snp::Vmm::Qemu, "qemu"),
            VmmName::Ec2 => (snp::Vmm::Ec2, "ec2"),
        };
        let digest = snp::launch_digest(&snp::Launch {
            firmware: &firmware,
            kernel: kernel.as_ref().map(|image| snp::Kernel { image, initrd: &initrd, append }),
            vcpus: self.vcpus,
            cpu_signature,
            vmm,
            guest_features: self.guest_features,
        })
        .with_context(|| unusable(&self.firmware))?;
        let details = json!({
            "vcpus": self.vcpus,
            "vcpu_signature": format!("{cpu_signature:#x}"),
            "vmm": vmm_name,
            "guest_features": format!("{:#x}", self.guest_features),
            "kernel": self.kernel.is_some(),
        });
        Ok(EnclaveInfo {
            tee: Some(Tee::Snp),
            enclave_hash: Hex(digest).into(),
            mrenclave: None,
            details: members(details),
        })
    }
}

impl Tdx {
    /// An enclave_info.json; a policy's section; or MRTD alone, which nothing takes for an enclave hash.
    fn json(&self) -> Result<String> {
        let order = match self.order {
            Order::Page => tdx::PageOrder::PageByPage,
            Order::Section => tdx::PageOrder::SectionBySection,
        };
        let firmware = bytes(&self.firmware)?;
        let mrtd = tdx::mrtd(&firmware, order).with_context(|| unusable(&self.firmware))?;
        if let Some(kernel) = &self.kernel {
            let rtmrs = tdx::rtmrs(&bytes(kernel)?).with_context(|| unusable(kernel))?;
            let machine = self.memory.zip(self.acpi.as_deref());
            let rtmr0 = machine.map(|(memory, folder)| self.rtmr0(&firmware, memory, folder)).transpose()?;
            return Ok(tdx_section(mrtd, rtmr0.as_deref(), &rtmrs));
        }
        let Ok(rtmrs) = <[Hex<48>; 4]>::try_from(self.rtmrs.clone()) else {
            return Ok(serde_json::to_string_pretty(&json!({ "tee": Tee::Tdx, "mrtd": Hex(mrtd) }))? + "\n");
        };
        let details = json!({ "mrtd": Hex(mrtd), "rtmrs": rtmrs });
        let enclave_hash = tdx::enclave_hash(&mrtd, &rtmrs.map(|rtmr| rtmr.0));
        let info =
            EnclaveInfo { tee: Some(Tee::Tdx), enclave_hash, mrenclave: None, details: members(details) };
        Ok(info.to_json())
    }
}

impl Tdx {
    fn rtmr0(&self, firmware: &[u8], memory: u64, folder: &Path) -> Result<Vec<tdx::PredictedRtmr>> {
        let file = |name: &str| {
            let copy =
                || format!("expected a copy of /sys/firmware/qemu_fw_cfg/by_name in {}", folder.display());
            bytes(&folder.join(name).join("raw")).with_context(copy)
        };
        let script = file("etc/table-loader")?;
        let names = tdx::acpi_files(&script).with_context(|| unusable(folder))?;
        let mut acpi = vec![script];
        for name in names {
            acpi.push(file(&name)?);
        }
        tdx::rtmr0(firmware, memory, &acpi).with_context(|| unusable(&self.firmware))
    }
}

/// A section of a policy, in which each list takes any of its values.
fn tpm_section(measured: &UkiMeasurement, plain_machine: bool) -> String {
    let mut pcrs: BTreeMap<u8, &[Predicted]> = BTreeMap::new();
    let machine = measured.plain_machine.iter().filter(|_| plain_machine);
    pcrs.extend(measured.image.iter().chain(machine).map(|(index, values)| (*index, values.as_slice())));
    let mut text = String::from(if plain_machine { PLAIN_MACHINE } else { IMAGE_ALONE });
    text.push_str("[tpm.pcrs]\n");
    for (index, values) in pcrs {
        list(&mut text, index, values.iter().map(|Predicted { when, value }| (*when, value)));
    }
    text
}

fn tdx_section(mrtd: [u8; 48], rtmr0: Option<&[tdx::PredictedRtmr]>, rtmrs: &tdx::Rtmrs) -> String {
    let mut text = String::from(if rtmr0.is_some() { ALL_REGISTERS } else { WITHOUT_RTMR0 });
    text.push_str("[tdx]\n");
    list(&mut text, "mr_td", [("firmware", Hex(mrtd))]);
    let of_image = [("rtmr1", &rtmrs.rtmr1), ("rtmr2", &rtmrs.rtmr2), ("rtmr3", &rtmrs.rtmr3)];
    let registers = rtmr0.map(|values| ("rtmr0", values)).into_iter();
    for (name, values) in registers.chain(of_image.map(|(name, values)| (name, values.as_slice()))) {
        list(&mut text, name, values.iter().map(|tdx::PredictedRtmr { when, value }| (*when, value)));
    }
    text
}

/// A list of values in TOML, each with a comment that says when it is found.
fn list(
    text: &mut String,
    name: impl Display,
    values: impl IntoIterator<Item = (&'static str, impl Display)>,
) {
    text.push_str(&format!("{name} = [\n"));
    for (when, value) in values {
        text.push_str(&format!("    \"{value}\", # {when}\n"));
    }
    text.push_str("]\n");
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn unusable(path: &Path) -> String {
    format!("cannot use {}", path.display())
}

fn cpu_model(name: &str) -> Result<u32, String> {
    snp::signature_of(name)
        .ok_or_else(|| format!("expected {} or a version of them", snp::CPU_MODELS.join(", ")))
}

const IMAGE_ALONE: &str = "# Any of each; [azure.pcrs] takes them too. A policy needs PCRs 0 and 2 of the machine's firmware besides.\n";
const PLAIN_MACHINE: &str = "# Any of each. A policy needs PCR 0 of the machine's firmware besides.\n";
const ALL_REGISTERS: &str = "# Any of each.\n";
const WITHOUT_RTMR0: &str = "# Any of each. A policy needs rtmr0 besides, which --memory and --acpi predict: the memory's size and QEMU's ACPI tables.\n";
const FIRMWARE_ONLY: &str = "WARNING: without --kernel this measurement covers the firmware alone. Whoever runs the machine \
    boots any kernel, disk and program under it.";

/// A number in decimal, or in hex with `0x`.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected a number, in hex with 0x".into())
}

/// A size in bytes, of a number and a unit as QEMU's `-m` has them.
fn memory(text: &str) -> Result<u64, String> {
    let units = [('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)];
    let size = units.into_iter().find_map(|(unit, bytes)| {
        text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(bytes).filter(|size| *size > 0)
    });
    size.ok_or_else(|| "expected a number and a unit (M, G or T), such as 2G".into())
}

//! What attests this server: the only place outside `confonnx-attest` that knows TEEs by name.

use std::{fmt, path::Path};

use clap::ValueEnum;
use confonnx_attest::{
    azure, nitro,
    produce::{Attester, ProduceError},
    sgx, snp, tdx, tpm,
};
use serde::Deserialize;
use tracing::info;

/// The TEEs that can be asked for by name. Not the insecure stand-in, which has flags of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeeName {
    /// An Azure confidential VM: its paravisor's report and its vTPM.
    Azure,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Intel SGX, by way of Gramine.
    Sgx,
    /// AWS Nitro Enclaves.
    Nitro,
    /// Measured boot and a TPM 2.0.
    Tpm,
}

/// Why there is nothing to attest this server.
#[derive(Debug, thiserror::Error)]
pub enum TeeError {
    /// Nothing was found.
    #[error(
        "no TEE found: {}. Run it inside a confidential VM or enclave, or pass --debug to run without protection, for \
         development only",
        Looked(.0)
    )]
    NoHardware(Vec<(TeeName, &'static str)>),
    /// The one asked for was not found.
    #[error("--tee {name} was asked for, but there is no {looked_for}")]
    NotFound {
        /// The TEE's name.
        name: TeeName,
        /// What would have shown it.
        looked_for: &'static str,
    },
    /// The device is there, but does not work. Another one is not taken instead: it may prove less.
    #[error("{name} cannot be used: {source}. Mend that, or choose another with --tee, which may prove less")]
    Unusable {
        /// The TEE's name.
        name: TeeName,
        /// What is wrong with it.
        source: ProduceError,
    },
    /// More than one TEE was found, none of which contains the other.
    #[error("both {0} and {1} are here: choose one with --tee")]
    Ambiguous(TeeName, TeeName),
    /// Two settings contradict each other.
    #[error("--tee {0} wants a TEE, and --debug or --simulation none: give one of them")]
    Contradiction(TeeName),
    /// This build has no insecure TEE.
    #[cfg(not(feature = "insecure-dev"))]
    #[error(
        "--debug and --simulation want the software stand-in, which release builds do not have: run it inside a TEE, or \
         build confonnx-server with feature insecure-dev, for development only"
    )]
    NoStandIn,
    /// The executable cannot be measured.
    #[error(transparent)]
    Produce(#[from] ProduceError),
}

/// How one TEE is found.
struct Probe<T> {
    name: TeeName,
    looked_for: &'static str,
    find: fn(&Path) -> Result<Option<T>, ProduceError>,
}

/// The TEE this process runs in, or the one that `wanted` names. The insecure stand-in only when `insecure` asks for it,
/// never as a fallback. Devices are looked for below `root`, which is `/` but in tests.
///
/// # Errors
/// [`TeeError`]
pub fn select(root: &Path, insecure: bool, wanted: Option<TeeName>) -> Result<Attester, TeeError> {
    match (insecure, wanted) {
        (true, Some(name)) => Err(TeeError::Contradiction(name)),
        (true, None) => insecure_stand_in(),
        (false, wanted) => choose(PROBES, root, wanted),
    }
}

#[cfg(feature = "insecure-dev")]
fn insecure_stand_in() -> Result<Attester, TeeError> {
    Ok(Attester::insecure(confonnx_attest::produce::measure_executable()?))
}

#[cfg(not(feature = "insecure-dev"))]
fn insecure_stand_in() -> Result<Attester, TeeError> {
    Err(TeeError::NoStandIn)
}

fn choose<T>(probes: &[Probe<T>], root: &Path, wanted: Option<TeeName>) -> Result<T, TeeError> {
    let mut chosen: Option<(TeeName, T)> = None;
    for probe in probes.iter().filter(|probe| wanted.is_none_or(|wanted| wanted == probe.name)) {
        let Probe { name, looked_for, find } = *probe;
        if let Some((holder, _)) = &chosen
            && holder.contains(name)
        {
            info!("{name}: not looked for, {holder} has its own");
            continue;
        }
        match find(root) {
            Err(source) => return Err(TeeError::Unusable { name, source }),
            Ok(None) => info!("{name}: no {looked_for}"),
            Ok(Some(found)) => {
                info!("{name}: found ({looked_for})");
                if let Some((other, _)) = chosen {
                    return Err(TeeError::Ambiguous(other, name));
                }
                chosen = Some((name, found));
            }
        }
    }
    match (chosen, wanted) {
        (Some((name, found)), _) => {
            info!("TEE {name} attests this server");
            Ok(found)
        }
        (None, None) => Err(TeeError::NoHardware(probes.iter().map(|p| (p.name, p.looked_for)).collect())),
        (None, Some(name)) => {
            let looked_for =
                probes.iter().find(|probe| probe.name == name).map_or("such device", |p| p.looked_for);
            Err(TeeError::NotFound { name, looked_for })
        }
    }
}

/// Whether the variables of this process are part of what is measured: in an enclave by Gramine the manifest has them, and those
/// of whoever started it are not there.
pub fn measures_environment(root: &Path) -> bool {
    matches!(sgx::Device::find(root), Ok(Some(_)))
}

impl TeeName {
    /// Whether machines with this TEE show `other`, too, which then proves less.
    fn contains(self, other: Self) -> bool {
        match self {
            Self::Azure => matches!(other, Self::Snp | Self::Tdx | Self::Tpm),
            Self::Snp | Self::Tdx | Self::Sgx | Self::Nitro => other == Self::Tpm,
            Self::Tpm => false,
        }
    }
}

impl fmt::Display for TeeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Azure => "azure",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Sgx => "sgx",
            Self::Nitro => "nitro",
            Self::Tpm => "tpm",
        })
    }
}

struct Looked<'a>(&'a [(TeeName, &'static str)]);

impl fmt::Display for Looked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, looked_for)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}no {looked_for} ({name})")?;
        }
        Ok(())
    }
}

/// The probes in the order of what proves most: a TEE that contains another one comes before it.
const PROBES: &[Probe<Attester>] = &[
    Probe {
        name: TeeName::Azure,
        looked_for: "paravisor's report in a virtual TPM (/dev/tpmrm0)",
        find: |root| Ok(azure::Device::find(root)?.map(Attester::Azure)),
    },
    Probe {
        name: TeeName::Snp,
        looked_for: "AMD SEV-SNP guest (/sys/kernel/config/tsm/report, /dev/sev-guest)",
        find: |root| Ok(snp::Device::find(root)?.map(Attester::Snp)),
    },
    Probe {
        name: TeeName::Tdx,
        looked_for: "Intel TDX guest (/sys/kernel/config/tsm/report)",
        find: |root| Ok(tdx::Device::find(root)?.map(Attester::Tdx)),
    },
    Probe {
        name: TeeName::Sgx,
        looked_for: "enclave by Gramine (/dev/attestation)",
        find: |root| Ok(sgx::Device::find(root)?.map(Attester::Sgx)),
    },
    Probe {
        name: TeeName::Nitro,
        looked_for: "Nitro security module (/dev/nsm)",
        find: |root| Ok(nitro::Device::find(root)?.map(Attester::Nitro)),
    },
    Probe {
        name: TeeName::Tpm,
        looked_for: "TPM 2.0 (/dev/tpmrm0)",
        find: |root| Ok(tpm::Device::find(root)?.map(Attester::Tpm)),
    },
];

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A probe that looks for one file, which says whether the TEE works.
    macro_rules! probe {
        ($name:ident, $path:literal) => {
            Probe { name: TeeName::$name, looked_for: $path, find: |root| read(root, $path, TeeName::$name) }
        };
    }

    const FAKES: &[Probe<TeeName>] = &[
        probe!(Azure, "azure"),
        probe!(Snp, "snp"),
        probe!(Tdx, "tdx"),
        probe!(Sgx, "sgx"),
        probe!(Nitro, "nitro"),
        probe!(Tpm, "tpm"),
    ];

    fn read(root: &Path, path: &str, name: TeeName) -> Result<Option<TeeName>, ProduceError> {
        match std::fs::read(root.join(path)) {
            Err(_) => Ok(None),
            Ok(bytes) if bytes.is_empty() => Ok(Some(name)),
            Ok(_) => Err(ProduceError::Executable {
                path: "device",
                source: io::ErrorKind::PermissionDenied.into(),
            }),
        }
    }

    fn tree(files: &str) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for file in files.split_whitespace() {
            let (name, broken) = file.strip_suffix('!').map_or((file, false), |name| (name, true));
            std::fs::write(tree.path().join(name), if broken { "!" } else { "" }).unwrap();
        }
        tree
    }

    fn chosen(files: &str, wanted: Option<TeeName>) -> Result<TeeName, TeeError> {
        choose(FAKES, tree(files).path(), wanted)
    }

    #[test]
    fn what_contains_the_others_is_chosen() {
        for (files, expected) in [
            ("azure snp tpm", TeeName::Azure),
            ("azure tdx tpm", TeeName::Azure),
            ("snp tpm", TeeName::Snp),
            ("tdx", TeeName::Tdx),
            ("sgx", TeeName::Sgx),
            ("nitro tpm", TeeName::Nitro),
            ("tpm", TeeName::Tpm),
            // This TEE is not looked for, so its trouble is no matter.
            ("snp tpm!", TeeName::Snp),
        ] {
            assert_eq!(chosen(files, None).unwrap(), expected, "{files}");
        }
    }

    #[test]
    fn what_does_not_work_is_not_replaced_by_less() {
        for (files, name) in [("snp! tpm", "snp"), ("azure! snp", "azure"), ("tdx nitro!", "nitro")] {
            let error = chosen(files, None).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} cannot be used")), "{error}");
            assert!(error.contains("permission denied") && error.contains("--tee"), "{error}");
        }
        assert_eq!(chosen("snp! tpm", Some(TeeName::Tpm)).unwrap(), TeeName::Tpm);
    }

    #[test]
    fn two_of_a_kind_need_a_choice() {
        let error = chosen("tdx sgx", None).unwrap_err();
        assert_eq!(error.to_string(), "both tdx and sgx are here: choose one with --tee");
        assert_eq!(chosen("tdx sgx", Some(TeeName::Sgx)).unwrap(), TeeName::Sgx);
    }

    #[test]
    fn what_is_absent_is_named() {
        let error = chosen("", None).unwrap_err().to_string();
        assert!(error.contains("no azure (azure), no snp (snp)") && error.contains("--debug"), "{error}");
        let error = chosen("snp", Some(TeeName::Nitro)).unwrap_err();
        assert_eq!(error.to_string(), "--tee nitro was asked for, but there is no nitro");
    }

    #[test]
    fn the_insecure_stand_in_is_never_chosen_by_itself() {
        let empty = tree("");
        assert!(matches!(select(empty.path(), false, None), Err(TeeError::NoHardware(_))));
        assert_eq!(select(empty.path(), true, None).unwrap().tee(), confonnx_attest::Tee::Insecure);
        assert!(matches!(select(empty.path(), true, Some(TeeName::Snp)), Err(TeeError::Contradiction(_))));
    }

    #[test]
    fn variables_are_measured_in_enclaves_alone() {
        let root = tempfile::tempdir().unwrap();
        assert!(!measures_environment(root.path()));
        let attestation = root.path().join("dev/attestation");
        std::fs::create_dir_all(&attestation).unwrap();
        for (kind, expected) in [("none", false), ("dcap", true)] {
            std::fs::write(attestation.join("attestation_type"), kind).unwrap();
            assert_eq!(measures_environment(root.path()), expected, "{kind}");
        }
    }

    #[test]
    fn devices_are_looked_for_below_the_root() {
        let tree = tree("");
        std::fs::create_dir(tree.path().join("dev")).unwrap();
        std::fs::write(tree.path().join("dev/sev-guest"), "").unwrap();
        assert_eq!(select(tree.path(), false, None).unwrap().tee(), confonnx_attest::Tee::Snp);
        std::fs::write(tree.path().join("dev/tpmrm0"), "no TPM").unwrap();
        let error = select(tree.path(), false, Some(TeeName::Tpm)).unwrap_err();
        assert!(matches!(error, TeeError::Unusable { name: TeeName::Tpm, .. }), "{error}");
        // A TPM without a policy for TPMs might be a paravisor's.
        let error = select(tree.path(), false, None).unwrap_err();
        assert!(matches!(error, TeeError::Unusable { name: TeeName::Azure, .. }), "{error}");
    }

    #[test]
    fn every_name_is_its_flag_and_wire_name_and_has_its_probe() {
        let probed: Vec<_> = PROBES.iter().map(|probe| probe.name).collect();
        assert_eq!(probed, TeeName::value_variants());
        for name in TeeName::value_variants() {
            assert_eq!(name.to_possible_value().unwrap().get_name(), name.to_string());
        }
    }

    #[test]
    fn those_that_contain_others_come_first() {
        for (index, probe) in PROBES.iter().enumerate() {
            for later in &PROBES[index..] {
                assert!(!later.name.contains(probe.name), "{} before {}", probe.name, later.name);
            }
        }
    }
}

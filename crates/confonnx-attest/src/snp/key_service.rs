//! A report in the form of the services that release secrets (see `crate::key_service`).

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

use super::report::{Product, Report, Tcb};
use super::{Evidence, Roots};
use crate::x509::Certificate;

/// Why a report has no such form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The report is of a version that does not say its processor.
    #[error(
        "expected an attestation report of version 3 or later on a known processor, found {found}: update the host's firmware"
    )]
    Report {
        /// The report's version and processor.
        found: String,
    },
    /// What vouches for the report's key is missing.
    #[error(
        "the evidence has no certificate for the key that signed it (VCEK): expected it from the vendor's service, see --collateral-url-amd"
    )]
    Certificate,
}

impl Evidence {
    /// The JSON of `AttestationReport` and `CertTableEntry` of the crate `sev` 7, which Trustee's verifier reads.
    pub(crate) fn trustee(&self) -> Result<Value, FormError> {
        let report = &*self.report;
        let product = product(report)?;
        let field =
            |at: usize, len: usize| report.bytes().get(at..at.saturating_add(len)).unwrap_or_default();
        // Integers of a report are little-endian.
        let integer = |at, len| field(at, len).iter().rfold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        let tcb = |bytes: [u8; 8]| {
            let Tcb { fmc, bootloader, tee, snp, microcode } =
                Tcb::decode(bytes, product).ok_or_else(|| FormError::Report {
                    found: "a TCB version with bits that are reserved".into(),
                })?;
            let fmc = (product == Product::Turin).then_some(fmc);
            let tcb = json!({
                "fmc": fmc, "bootloader": bootloader, "tee": tee, "snp": snp, "microcode": microcode
            });
            Ok::<_, FormError>(tcb)
        };
        let version = |at| match field(at, 3) {
            [build, minor, major] => json!({ "major": major, "minor": minor, "build": build }),
            _ => Value::Null,
        };
        // The mitigation vectors are there since version 5.
        let vector = |at| (report.version >= 5).then(|| integer(at, 8));
        let attestation_report = json!({
            "version": report.version,
            "guest_svn": report.guest_svn,
            "policy": integer(0x08, 8),
            "family_id": report.family_id,
            "image_id": report.image_id,
            "vmpl": report.vmpl,
            "sig_algo": report.signature_algorithm,
            "current_tcb": tcb(report.current_tcb)?,
            "plat_info": integer(0x40, 8),
            "key_info": integer(0x48, 4),
            "report_data": field(0x50, 64),
            "measurement": field(0x90, 48),
            "host_data": report.host_data,
            "id_key_digest": field(0xE0, 48),
            "author_key_digest": field(0x110, 48),
            "report_id": field(0x140, 32),
            "report_id_ma": field(0x160, 32),
            "reported_tcb": tcb(report.reported_tcb)?,
            "cpuid_fam_id": integer(0x188, 1),
            "cpuid_mod_id": integer(0x189, 1),
            "cpuid_step": integer(0x18A, 1),
            "chip_id": field(0x1A0, 64),
            "committed_tcb": tcb(report.committed_tcb)?,
            "current": version(0x1E8),
            "committed": version(0x1EC),
            "launch_tcb": tcb(report.launch_tcb)?,
            "launch_mit_vector": vector(0x1F8),
            "current_mit_vector": vector(0x200),
            "signature": { "r": field(0x2A0, 72), "s": field(0x2E8, 72) },
        });
        let entry = |kind: &str, it: &Certificate| json!({ "cert_type": kind, "data": it.der() });
        let vcek = self.endorsements.vcek.iter().map(|it| entry("VCEK", it));
        let vlek = self.endorsements.vlek.iter().map(|it| entry("VLEK", it));
        let chain: Vec<_> = vlek.chain(vcek).take(1).collect();
        // Without a chain Trustee fetches the VCEK itself.
        let cert_chain = (!chain.is_empty()).then_some(chain);
        Ok(json!({ "attestation_report": attestation_report, "cert_chain": cert_chain }))
    }

    /// VCEK, ASK, ARK in PEM.
    pub(crate) fn chain_pem(&self) -> Result<String, FormError> {
        let root = Roots::amd().of(product(&self.report)?).ok_or(FormError::Certificate)?;
        let vcek = self.endorsements.vcek.as_ref().ok_or(FormError::Certificate)?;
        let ask = self.endorsements.ask.as_ref().or(root.ask.as_ref()).ok_or(FormError::Certificate)?;
        Ok([vcek, ask, &root.ark].map(pem).concat())
    }
}

fn product(report: &Report) -> Result<Product, FormError> {
    report.product().flatten().ok_or_else(|| FormError::Report {
        found: format!("version {}, processor {}", report.version, report.shown_cpuid()),
    })
}

/// The certificate in PEM (RFC 7468).
fn pem(certificate: &Certificate) -> String {
    let body = Base64::encode_string(certificate.der());
    let lines = body.as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line)));
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

//! The checks of quotes, chains and revocation lists, each by itself.

use dcap_qvl::quote::{Report, TDAttributes};
use sha2::{Digest as _, Sha256};

use super::collateral::Collateral;
use super::enclave::EnclaveReport;
use super::quote::Quote;
use super::root::Root;
use crate::x509::{Algorithm, Certificate, Crl, Hash, PublicKey, SignatureError, check_period, shown_time};
use crate::{UnixTime, Verdict, digest};

impl Quote {
    /// The 64 bytes that the program asked the hardware to include.
    pub(crate) fn report_data(&self) -> [u8; 64] {
        match &self.report {
            Report::SgxEnclave(report) => report.report_data,
            Report::TD10(report) => report.report_data,
            Report::TD15(report) => report.base.report_data,
            Report::TD15Ex(report) => report.base.base.report_data,
        }
    }

    fn pck(&self) -> &Certificate {
        let [pck, ..] = &self.chain;
        pck
    }

    fn pck_ca(&self) -> &Certificate {
        let [_, ca, _] = &self.chain;
        ca
    }
}

/// The quote's signature, and why its key is the quoting enclave's.
pub(super) fn signatures(quote: &Quote, verdict: &mut Verdict) {
    let key = [&[UNCOMPRESSED], &quote.attestation_key[..]].concat();
    let verified = PublicKey::P256(key).verify(ECDSA, quote.signed(), &quote.signature);
    passed("signature", "by the attestation key", verified, verdict);

    let bound = Sha256::new().chain_update(quote.attestation_key).chain_update(quote.qe_auth_data).finalize();
    let expected = [&bound[..], &[0; 32]].concat();
    let found = EnclaveReport::parse(&quote.qe_report);
    let found = found.map_or_else(|err| err.to_string(), |report| digest::encode(&report.report_data));
    verdict.equal("attestation key", digest::encode(&expected), found);

    let signed = quote.pck().public_key().map_err(|err| err.to_string()).and_then(|pck| {
        let verified = pck.verify(ECDSA, &quote.qe_report, &quote.qe_signature);
        verified.map_err(|err| err.to_string())
    });
    passed("quoting enclave", "signed by the PCK", signed, verdict);
}

/// The chain of the platform's key.
pub(super) fn chain(root: &Root, quote: &Quote, now: UnixTime, verdict: &mut Verdict) {
    let [pck, ca, anchor] = &quote.chain;
    let issued = pck.issued_by(ca, 0).and_then(|()| ca.issued_by(&root.certificate, 1));
    let found = match issued {
        Ok(()) if *anchor != root.certificate => format!("another root: {}", anchor.subject()),
        Ok(()) => "to Intel's root".into(),
        Err(err) => err.to_string(),
    };
    verdict.equal("chain", "to Intel's root", found);
    let (from, until) = validity(&[pck, ca, &root.certificate]);
    period("chain validity", now, from, Some(until), verdict);
}

/// The revocation lists.
pub(super) struct Crls {
    /// The list of the PCK's issuer.
    pck: Option<Crl>,
    /// The list of Intel's root.
    root: Option<Crl>,
}

impl Crls {
    pub(super) fn check(
        root: &Root,
        quote: &Quote,
        collateral: &Collateral,
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Self {
        let names = ("pck crl", "pck crl age");
        let pck = check_crl(names, &collateral.inner.pck_crl, quote.pck_ca(), now, verdict);
        let names = ("root crl", "root crl age");
        let root = check_crl(names, &collateral.inner.root_ca_crl, &root.certificate, now, verdict);
        Self { pck, root }
    }

    /// Whether any certificate is revoked: of the quote's chain and of whoever signed TCB info and QE identity.
    pub(super) fn check_revocation(&self, quote: &Quote, signers: &[Certificate], verdict: &mut Verdict) {
        let expected = "no certificate is revoked";
        let (Some(pck_crl), Some(root_crl)) = (&self.pck, &self.root) else {
            return verdict.undecided("revocation", expected, "no revocation list that can be read");
        };
        let by_root = [quote.pck_ca()].into_iter().chain(signers);
        let listed = [(pck_crl, quote.pck())].into_iter().chain(by_root.map(|of| (root_crl, of)));
        let revoked = listed.filter_map(|(crl, certificate)| {
            let since = shown_time(crl.revoked_since(certificate.serial())?);
            Some(format!("{} is revoked since {since}", certificate.common_name()))
        });
        let found = revoked.collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { expected.into() } else { found };
        verdict.equal("revocation", expected, found);
    }
}

fn check_crl(
    (name, age): (&'static str, &'static str),
    der: &[u8],
    issuer: &Certificate,
    now: UnixTime,
    verdict: &mut Verdict,
) -> Option<Crl> {
    let expected = format!("issued by {}", issuer.common_name());
    let crl = match Crl::from_der(der) {
        Ok(crl) => crl,
        Err(err) => {
            verdict.decide(name, expected, err.to_string(), false);
            verdict.undecided(age, current_at(now), UNREADABLE);
            return None;
        }
    };
    passed(name, &expected, crl.issued_by(issuer), verdict);
    crl.check_age(age, now, verdict);
    Some(crl)
}

/// Reserved attributes of a trust domain are off. All others are for policies to judge.
pub(super) fn td_attributes(quote: &Quote, verdict: &mut Verdict) {
    let Some(report) = quote.report.as_td10() else { return };
    let Ok(attributes) = TDAttributes::parse(report.td_attributes) else {
        return verdict.decide("td attributes", "attributes", digest::encode(&report.td_attributes), false);
    };
    let found = if attributes.reserved == 0 { NO_RESERVED } else { "reserved bits" };
    verdict.equal("td attributes", NO_RESERVED, found);
}

/// The checks that take collateral, when there is none.
pub(super) fn without_collateral(quote: &Quote, verdict: &mut Verdict) {
    let names = [
        "pck crl",
        "pck crl age",
        "root crl",
        "root crl age",
        "tcb info",
        "tcb info validity",
        "tcb info platform",
        "qe identity",
        "qe identity validity",
        "qe identity match",
        "tcb level",
    ];
    let tdx_module = quote.report.as_td10().map(|_| "tdx module");
    for name in names.into_iter().chain(tdx_module).chain(["revocation", "dcap"]) {
        verdict.undecided(name, "stapled collateral", "none: the server has to staple Intel's collateral");
    }
}

/// Records a check that passes when there is no error.
pub(super) fn passed(
    name: &'static str,
    expected: &str,
    result: Result<(), impl ToString>,
    verdict: &mut Verdict,
) {
    let found = result.as_ref().map_or_else(|err| err.to_string(), |()| expected.to_owned());
    verdict.decide(name, expected, found, result.is_ok());
}

/// The period in which all certificates are valid.
pub(super) fn validity(certificates: &[&Certificate]) -> (UnixTime, UnixTime) {
    let mut period = (UnixTime(0), UnixTime(u64::MAX));
    for (from, until) in certificates.iter().map(|certificate| certificate.validity()) {
        period = (period.0.max(from), period.1.min(until));
    }
    period
}

/// Records whether `now` lies in a period: failed before it, undecided after it.
pub(super) fn period(
    name: &'static str,
    now: UnixTime,
    from: UnixTime,
    until: Option<UnixTime>,
    verdict: &mut Verdict,
) {
    let end = until.map_or_else(|| "at no time".into(), shown_time);
    let found = format!("valid {} to {end}", shown_time(from));
    check_period(name, now, from, until, found, verdict);
}

/// Whether the key of a certificate signed a message in Intel's raw form, r ‖ s.
pub(super) fn signed_by(signer: &Certificate, message: &[u8], signature: &[u8]) -> Result<(), String> {
    let key = signer.public_key().map_err(|err| err.to_string())?;
    key.verify(ECDSA, message, signature).map_err(|err: SignatureError| err.to_string())
}

pub(super) fn current_at(now: UnixTime) -> String {
    format!("valid at {}", shown_time(now))
}

const NO_RESERVED: &str = "no reserved bits";
pub(super) const UNREADABLE: &str = "nothing that can be read";
const ECDSA: Algorithm = Algorithm::EcdsaFixed(Hash::Sha256);
/// What a point on a curve starts with (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 0x04;

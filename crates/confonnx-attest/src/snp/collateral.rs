//! What AMD's Key Distribution Service has to be asked for (57230, chapter 4).

use super::Endorsements;
use super::chain::{product_of, tcb_of};
use super::report::{Product, Report, SigningKey, Tcb};
use crate::collateral::{Answer, Request, StapleError, Vendor};
use crate::digest;
use crate::x509::{Certificate, Crl, certificates_from_pem};

/// The requests: for the certificate of the signing key unless the platform gave it, for the ASVK of VLEKs, and for the
/// revocation list. None when the processor is unknown.
pub(super) fn requests(report: &Report, endorsements: &Endorsements) -> Vec<Request> {
    let Some(product) = product(report, endorsements) else { return Vec::new() };
    let wanted: Vec<String> = match report.signing_key() {
        SigningKey::Vcek => vcek_path(report, endorsements, product)
            .into_iter()
            .chain([format!("/vcek/v1/{product}/crl")])
            .collect(),
        // A VLEK is given to its cloud provider alone, which gives it to guests.
        SigningKey::Vlek => vec![format!("/vlek/v1/{product}/cert_chain"), format!("/vlek/v1/{product}/crl")],
        SigningKey::None | SigningKey::Unknown(_) => Vec::new(),
    };
    wanted.into_iter().map(|path| Request { vendor: Vendor::Amd, path }).collect()
}

/// Adds the answers to `requests` of the same evidence; answers that are absent change nothing.
pub(super) fn staple(
    endorsements: &mut Endorsements,
    requests: &[Request],
    answers: &[Option<&Answer>],
) -> Result<(), StapleError> {
    if requests.len() != answers.len() {
        return Err(StapleError::Count { expected: requests.len(), found: answers.len() });
    }
    let mut stapled = endorsements.clone();
    for (request, answer) in requests.iter().zip(answers) {
        let Some(answer) = answer else { continue };
        let malformed = |expected| StapleError::Malformed { path: request.path.clone(), expected };
        if request.path.ends_with("/crl") {
            let crl = Crl::from_der(&answer.body);
            stapled.crl = Some(crl.map_err(|_| malformed("a DER revocation list"))?);
        } else if request.path.ends_with("/cert_chain") {
            let asvk = std::str::from_utf8(&answer.body)
                .ok()
                .and_then(|text| certificates_from_pem(text).ok())
                .and_then(|chain| chain.into_iter().next());
            stapled.asvk = Some(asvk.ok_or_else(|| malformed("ASVK and ARK in PEM"))?);
        } else {
            let vcek = Certificate::from_der(&answer.body);
            stapled.vcek = Some(vcek.map_err(|_| malformed("a DER certificate"))?);
        }
    }
    *endorsements = stapled;
    Ok(())
}

/// The processor's product. Reports before version 3 do not say it: without a certificate that does, it is the product
/// that made most of them.
fn product(report: &Report, endorsements: &Endorsements) -> Option<Product> {
    let certified = endorsements.vcek.iter().chain(&endorsements.vlek).find_map(product_of);
    report.product().unwrap_or(Some(certified.unwrap_or(Product::Milan)))
}

/// The path at which to fetch the VCEK; `None` when it is there already and is for the reported TCB.
fn vcek_path(report: &Report, endorsements: &Endorsements, product: Product) -> Option<String> {
    let tcb = Tcb::decode(report.reported_tcb, product)?;
    if endorsements.vcek.as_ref().and_then(|vcek| tcb_of(vcek, product)) == Some(tcb) {
        return None;
    }
    let Tcb { fmc, bootloader, tee, snp, microcode } = tcb;
    let (chip, fmc) = match product {
        Product::Turin => (report.chip_id.get(..8)?, format!("fmcSPL={fmc:02}&")),
        Product::Milan | Product::Genoa => (&report.chip_id[..], String::new()),
    };
    let chip = digest::encode(chip);
    Some(format!(
        "/vcek/v1/{product}/{chip}?{fmc}blSPL={bootloader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}"
    ))
}

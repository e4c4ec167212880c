//! What to ask Intel's Provisioning Certification Service (PCS API v4) or a caching service (PCCS), and what its answers
//! hold.

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::config::PckCa;
use dcap_qvl::intel::{parse_pck_extension, pck_ca};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::collateral::Collateral;
use super::quote::Quote;
use crate::collateral::{Answer, Request, StapleError, Vendor};
use crate::digest;
use crate::x509::Crl;

/// The requests for a quote: TCB info, QE identity, the two revocation lists. None when the PCK certificate is none.
pub(crate) fn requests(quote: &Quote) -> Vec<Request> {
    let [pck, ..] = &quote.chain;
    let (Ok(extension), Ok(ca)) = (parse_pck_extension(pck.der()), pck_ca(pck.der())) else {
        return Vec::new();
    };
    let tee = if quote.report.is_sgx() { "sgx" } else { "tdx" };
    let fmspc = digest::encode(&extension.fmspc).to_ascii_uppercase();
    let ca = match ca {
        PckCa::Processor => "processor",
        PckCa::Platform => "platform",
    };
    let paths = [
        format!("/{tee}/certification/v4/tcb?fmspc={fmspc}"),
        format!("/{tee}/certification/v4/qe/identity"),
        format!("/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"),
    ];
    let requests = paths.into_iter().map(|path| Request { vendor: Vendor::Intel, path });
    requests.chain([Request::intel_root_crl()]).collect()
}

/// Collateral from the answers to [`requests`], in their order. A part of it is worth nothing, so there is none while any
/// answer is absent.
pub(crate) fn staple(quote: &Quote, answers: &[Option<&Answer>]) -> Result<Option<Collateral>, StapleError> {
    let requests = requests(quote);
    let count = StapleError::Count { expected: requests.len(), found: answers.len() };
    let ([tcb, identity, pck_crl, root_crl], [tcb_path, identity_path, pck_crl_path, root_crl_path]) =
        (answers, requests.as_slice())
    else {
        return Err(count);
    };
    let (Some(tcb), Some(identity), Some(pck_crl), Some(root_crl)) = (tcb, identity, pck_crl, root_crl)
    else {
        return Ok(None);
    };
    let malformed =
        |request: &Request, expected| StapleError::Malformed { path: request.path.clone(), expected };
    let info: TcbInfoAnswer<'_> =
        crate::json::from_slice(&tcb.body).map_err(|_| malformed(tcb_path, "signed TCB info"))?;
    let qe: QeIdentityAnswer<'_> = crate::json::from_slice(&identity.body)
        .map_err(|_| malformed(identity_path, "a signed QE identity"))?;
    let signature = |text: &str| digest::decode_array::<64>(text).map(|bytes| bytes.to_vec());
    Ok(Some(Collateral::new(QuoteCollateralV3 {
        // The quote's own chain has the issuer.
        pck_crl_issuer_chain: String::new(),
        root_ca_crl: crl(&root_crl.body).ok_or_else(|| malformed(root_crl_path, "a DER revocation list"))?,
        pck_crl: crl(&pck_crl.body).ok_or_else(|| malformed(pck_crl_path, "a DER revocation list"))?,
        // Intel has called the field by both names.
        tcb_info_issuer_chain: chain(tcb, tcb_path, &["tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"])?,
        tcb_info: info.tcb_info.get().to_owned(),
        tcb_info_signature: signature(&info.signature)
            .map_err(|_| malformed(tcb_path, "TCB info with a signature of 64 bytes in hex"))?,
        qe_identity_issuer_chain: chain(identity, identity_path, &["sgx-enclave-identity-issuer-chain"])?,
        qe_identity: qe.enclave_identity.get().to_owned(),
        qe_identity_signature: signature(&qe.signature)
            .map_err(|_| malformed(identity_path, "a QE identity with a signature of 64 bytes in hex"))?,
        pck_certificate_chain: None,
    })))
}

/// The signature is over the bytes of the member, so they are taken as they are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcbInfoAnswer<'a> {
    #[serde(borrow)]
    tcb_info: &'a RawValue,
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QeIdentityAnswer<'a> {
    #[serde(borrow)]
    enclave_identity: &'a RawValue,
    signature: String,
}

/// A chain in PEM, percent-encoded in a header field.
fn chain(answer: &Answer, request: &Request, names: &[&'static str]) -> Result<String, StapleError> {
    let value = names.iter().find_map(|name| answer.header(name));
    let field = names.first().copied().unwrap_or_default();
    let value = value.ok_or_else(|| StapleError::Header { path: request.path.clone(), field })?;
    let expected = "accompanied by a percent-encoded chain in PEM";
    percent_decode(value).ok_or_else(|| StapleError::Malformed { path: request.path.clone(), expected })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// A revocation list as DER, which caching services send as hex.
fn crl(body: &[u8]) -> Option<Vec<u8>> {
    if Crl::from_der(body).is_ok() {
        return Some(body.to_vec());
    }
    let der = digest::decode(str::from_utf8(body).ok()?.trim_ascii()).ok()?;
    Crl::from_der(&der).is_ok().then_some(der)
}

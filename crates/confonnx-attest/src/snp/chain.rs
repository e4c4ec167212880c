//! The chain that vouches for a report's signing key: AMD's pinned ARK, the ASK or ASVK, the VCEK or VLEK, and AMD's
//! revocation list. Extensions and names are those of AMD's "VCEK Certificate and KDS Interface Specification" (57230).

use std::sync::LazyLock;

use base64ct::{Base64UrlUnpadded, Encoding};
use der::Decode;
use der::asn1::{Ia5StringRef, ObjectIdentifier, OctetStringRef};
use serde_json::{Map, Value};

use super::ParseError;
use super::report::{Product, Report, SigningKey, Tcb, shown_raw_tcb};
use crate::x509::{Certificate, Crl, shown_time};
use crate::{UnixTime, Verdict, digest};

/// Certificates and the revocation list that came with a report. Whether they are AMD's is decided by verifying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endorsements {
    pub(crate) vcek: Option<Certificate>,
    pub(crate) vlek: Option<Certificate>,
    pub(crate) ask: Option<Certificate>,
    pub(crate) asvk: Option<Certificate>,
    pub(crate) crl: Option<Crl>,
}

/// What chains have to end in.
#[derive(Debug)]
pub(crate) struct Roots(Vec<Root>);

#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) product: Product,
    pub(crate) ark: Certificate,
    /// The ASK to use when none was stapled.
    pub(crate) ask: Option<Certificate>,
}

/// What the chain says.
#[derive(Debug, Default)]
pub(super) struct Chain<'a> {
    /// The certificate of the key that is said to have signed the report.
    pub(super) key: Option<&'a Certificate>,
    pub(super) product: Option<Product>,
    /// The cloud provider that a VLEK belongs to.
    pub(super) csp: Option<String>,
}

impl Endorsements {
    /// Reads the document's `endorsements`; members it does not know are ignored.
    pub(crate) fn parse(members: &Map<String, Value>) -> Result<Self, ParseError> {
        let certificate = |member| {
            let der = member_bytes(members, member)?;
            let certificate = der.map(|der| Certificate::from_der(&der)).transpose();
            certificate.map_err(|err| ParseError::X509 { member, reason: err.to_string() })
        };
        let crl = member_bytes(members, "crl")?.map(|der| Crl::from_der(&der)).transpose();
        Ok(Self {
            vcek: certificate("vcek")?,
            vlek: certificate("vlek")?,
            ask: certificate("ask")?,
            asvk: certificate("asvk")?,
            crl: crl.map_err(|err| ParseError::X509 { member: "crl", reason: err.to_string() })?,
        })
    }

    pub(crate) fn to_members(&self) -> Map<String, Value> {
        let certificates =
            [("vcek", &self.vcek), ("vlek", &self.vlek), ("ask", &self.ask), ("asvk", &self.asvk)];
        let certificates = certificates.into_iter().filter_map(|(name, it)| Some((name, it.as_ref()?.der())));
        certificates
            .chain(self.crl.as_ref().map(|crl| ("crl", crl.der())))
            .map(|(name, der)| (name.into(), Base64UrlUnpadded::encode_string(der).into()))
            .collect()
    }
}

impl Roots {
    /// AMD's roots, which are part of this crate.
    pub(crate) fn amd() -> &'static Self {
        &AMD
    }

    #[cfg(test)]
    pub(crate) fn new(roots: Vec<Root>) -> Self {
        Self(roots)
    }

    pub(super) fn of(&self, product: Product) -> Option<&Root> {
        self.0.iter().find(|root| root.product == product)
    }
}

/// Makes every check of the chain; each that cannot be made is undecided.
pub(super) fn verify<'a>(
    report: &Report,
    endorsements: &'a Endorsements,
    roots: &Roots,
    now: UnixTime,
    verdict: &mut Verdict,
) -> Chain<'a> {
    let vlek = report.signing_key() == SigningKey::Vlek;
    let names = if vlek { &VLEK } else { &VCEK };
    let (key, stapled) = match vlek {
        true => (endorsements.vlek.as_ref(), endorsements.asvk.as_ref()),
        false => (endorsements.vcek.as_ref(), endorsements.ask.as_ref()),
    };
    let product = check_product(report, key, verdict);
    let root = product.and_then(|product| roots.of(product));
    let intermediate = stapled.or_else(|| root.filter(|_| !vlek)?.ask.as_ref());
    check_chain(names, key, intermediate, root, verdict);
    let validity = |name, certificate: Option<&Certificate>, verdict: &mut Verdict| match certificate {
        Some(certificate) => certificate.check_validity(name, now, verdict),
        None => verdict.undecided(name, format!("valid at {}", shown_time(now)), "no certificate"),
    };
    validity(names.key_validity, key, verdict);
    validity(names.intermediate_validity, intermediate, verdict);
    validity("ark validity", root.map(|root| &root.ark), verdict);
    check_revocation(names, intermediate, root, endorsements.crl.as_ref(), now, verdict);
    check_tcb(names, report, key, product, verdict);
    let csp = key.filter(|_| vlek).and_then(csp_of);
    match vlek {
        true => check_csp(key, csp.as_deref(), verdict),
        false => check_chip(report, key, product, verdict),
    }
    Chain { key, product, csp }
}

fn check_product(report: &Report, key: Option<&Certificate>, verdict: &mut Verdict) -> Option<Product> {
    let certified = key.map(|key| product_of(key).ok_or_else(|| shown_product(key)));
    let (expected, products): (String, &[Product]) = match report.product() {
        Some(Some(Product::Milan)) => ("Milan".into(), &[Product::Milan]),
        Some(Some(Product::Genoa)) => ("Genoa".into(), &[Product::Genoa]),
        Some(Some(Product::Turin)) => ("Turin".into(), &[Product::Turin]),
        Some(None) => {
            let expected = format!("a processor this version knows, not {}", report.shown_cpuid());
            verdict.undecided("product", expected, "another one: use a newer client");
            return None;
        }
        // Reports before version 3 do not say their product, and later processors do not make them.
        None => ("Milan or Genoa".into(), &[Product::Milan, Product::Genoa]),
    };
    match certified {
        Some(Ok(product)) => {
            verdict.decide("product", expected, product.name(), products.contains(&product));
            Some(product)
        }
        Some(Err(found)) => {
            verdict.decide("product", expected, found, false);
            report.product().flatten()
        }
        None => {
            verdict.undecided("product", expected, "no certificate of the signing key");
            report.product().flatten()
        }
    }
}

fn check_chain(
    names: &Names,
    key: Option<&Certificate>,
    intermediate: Option<&Certificate>,
    root: Option<&Root>,
    verdict: &mut Verdict,
) {
    let Some(root) = root else {
        return verdict.undecided(
            "chain",
            "a chain to AMD's root",
            "no processor family to choose the root by",
        );
    };
    let (product, ark) = (root.product, &root.ark);
    let name = format!("{}{product}", names.intermediate_prefix);
    let expected = format!("{} issued by {name} issued by AMD's ARK-{product}", names.key);
    let Some(intermediate) = intermediate else {
        return verdict.undecided("chain", expected, format!("no {} stapled", names.intermediate));
    };
    let Some(key) = key else {
        return verdict.undecided("chain", expected, format!("no {} stapled", names.key));
    };
    let by_root = intermediate.issued_by(ark, 0).map_err(|err| format!("{}: {err}", names.intermediate));
    let by_intermediate = key.issued_by(intermediate, 0).map_err(|err| format!("{}: {err}", names.key));
    let named = match intermediate.common_name() {
        found if found == name => Ok(()),
        found => Err(format!("{}: its name is {found}", names.intermediate)),
    };
    let errors: Vec<_> = [by_root, named, by_intermediate].into_iter().filter_map(Result::err).collect();
    let passed = errors.is_empty();
    let found = if passed { expected.clone() } else { errors.join("; ") };
    verdict.decide("chain", expected, found, passed);
}

fn check_revocation(
    names: &Names,
    intermediate: Option<&Certificate>,
    root: Option<&Root>,
    crl: Option<&Crl>,
    now: UnixTime,
    verdict: &mut Verdict,
) {
    let Some(crl) = crl else { return verdict.info("revocation", "no revocation list stapled") };
    let expected = root.map_or_else(|| "AMD's".into(), |root| format!("signed by ARK-{}", root.product));
    let genuine = match root.map(|root| crl.issued_by(&root.ark)) {
        Some(Ok(())) => {
            verdict.equal("crl", expected.clone(), expected);
            true
        }
        Some(Err(err)) => {
            verdict.decide("crl", expected, err.to_string(), false);
            false
        }
        None => {
            verdict.undecided("crl", expected, "no processor family to choose the root by");
            false
        }
    };
    crl.check_age("crl age", now, verdict);
    // The list is issued by the ARK, about what the ARK issued. AMD revokes no VCEK or VLEK; their serial number is 0.
    let expected = format!("{} not revoked", names.intermediate);
    match intermediate.filter(|_| genuine).map(|certificate| crl.revoked_since(certificate.serial())) {
        Some(None) => verdict.equal("revocation", expected.clone(), expected),
        Some(Some(since)) => {
            let found = format!("{} revoked at {}", names.intermediate, shown_time(since));
            verdict.decide("revocation", expected, found, false);
        }
        None => verdict.undecided("revocation", expected, "no list that can be relied on"),
    }
}

fn check_tcb(
    names: &Names,
    report: &Report,
    key: Option<&Certificate>,
    product: Option<Product>,
    verdict: &mut Verdict,
) {
    let reported = product.and_then(|product| Tcb::decode(report.reported_tcb, product));
    let expected = reported.map_or_else(|| shown_raw_tcb(report.reported_tcb), |tcb| tcb.to_string());
    let Some((key, product)) = key.zip(product) else {
        return verdict.undecided(names.tcb, expected, format!("no {} stapled", names.key));
    };
    let certified = tcb_of(key, product);
    let found = certified.map_or_else(|| "no TCB".into(), |tcb| tcb.to_string());
    verdict.decide(names.tcb, expected, found, reported.is_some() && reported == certified);
}

fn check_chip(report: &Report, key: Option<&Certificate>, product: Option<Product>, verdict: &mut Verdict) {
    let expected = digest::encode(&report.chip_id);
    let Some((key, product)) = key.zip(product) else {
        return verdict.undecided("vcek chip", expected, "no VCEK stapled");
    };
    match chip_of(key, product) {
        Some(chip) => verdict.equal("vcek chip", expected, digest::encode(&chip)),
        None => verdict.decide("vcek chip", expected, "no hardware id in the VCEK", false),
    }
}

fn check_csp(key: Option<&Certificate>, csp: Option<&str>, verdict: &mut Verdict) {
    let expected = "a VLEK of a cloud provider";
    match (key, csp) {
        (None, _) => verdict.undecided("vlek provider", expected, "no VLEK stapled"),
        (Some(_), Some(csp)) => verdict.decide("vlek provider", expected, csp, true),
        (Some(_), None) => verdict.decide("vlek provider", expected, "no provider in the VLEK", false),
    }
}

/// The TCB that a VCEK or VLEK is for.
pub(super) fn tcb_of(key: &Certificate, product: Product) -> Option<Tcb> {
    let part = |number: u32| -> Option<u8> { u8::from_der(key.extension(SPL.push_arc(number).ok()?)?).ok() };
    Some(Tcb {
        fmc: if product == Product::Turin { part(9)? } else { 0 },
        bootloader: part(1)?,
        tee: part(2)?,
        snp: part(3)?,
        microcode: part(8)?,
    })
}

/// The chip that a VCEK is for, as reports say it: 64 bytes; Turin has 8, then zeros.
fn chip_of(key: &Certificate, product: Product) -> Option<[u8; 64]> {
    let value = key.extension(HARDWARE_ID)?;
    let len = if product == Product::Turin { 8 } else { 64 };
    // Raw as a rule; some certificates have a DER octet string.
    let id = match value.len() == len {
        true => value,
        false => <&OctetStringRef>::from_der(value).ok()?.as_bytes(),
    };
    let mut chip = [0; 64];
    (id.len() == len).then_some(())?;
    chip.get_mut(..len)?.copy_from_slice(id);
    Some(chip)
}

/// The product that a VCEK (`Milan-B0`) or VLEK (`Milan`) is for.
pub(super) fn product_of(key: &Certificate) -> Option<Product> {
    let name = Ia5StringRef::from_der(key.extension(PRODUCT_NAME)?).ok()?;
    let line = name.as_str().split('-').next()?;
    Product::ALL.into_iter().find(|product| product.name() == line)
}

fn shown_product(key: &Certificate) -> String {
    let name = key.extension(PRODUCT_NAME).and_then(|value| Ia5StringRef::from_der(value).ok());
    name.map_or_else(
        || "no product name in the certificate".into(),
        |name| crate::shown::shown(name.as_str()),
    )
}

fn csp_of(key: &Certificate) -> Option<String> {
    Some(Ia5StringRef::from_der(key.extension(CSP_ID)?).ok()?.as_str().to_owned())
}

fn member_bytes(members: &Map<String, Value>, member: &'static str) -> Result<Option<Vec<u8>>, ParseError> {
    let Some(value) = members.get(member) else { return Ok(None) };
    let text = value.as_str().ok_or(ParseError::Base64 { member })?;
    Base64UrlUnpadded::decode_vec(text).map(Some).map_err(|_| ParseError::Base64 { member })
}

/// How checks and messages call a chain's parts.
struct Names {
    key: &'static str,
    intermediate: &'static str,
    intermediate_prefix: &'static str,
    key_validity: &'static str,
    intermediate_validity: &'static str,
    tcb: &'static str,
}

const VCEK: Names = Names {
    key: "VCEK",
    intermediate: "ASK",
    intermediate_prefix: "SEV-",
    key_validity: "vcek validity",
    intermediate_validity: "ask validity",
    tcb: "vcek tcb",
};

const VLEK: Names = Names {
    key: "VLEK",
    intermediate: "ASVK",
    intermediate_prefix: "SEV-VLEK-",
    key_validity: "vlek validity",
    intermediate_validity: "asvk validity",
    tcb: "vlek tcb",
};

static AMD: LazyLock<Roots> = LazyLock::new(|| {
    let embedded: [(Product, &[u8], &[u8]); 3] = [
        (Product::Milan, include_bytes!("roots/milan-ark.der"), include_bytes!("roots/milan-ask.der")),
        (Product::Genoa, include_bytes!("roots/genoa-ark.der"), include_bytes!("roots/genoa-ask.der")),
        (Product::Turin, include_bytes!("roots/turin-ark.der"), include_bytes!("roots/turin-ask.der")),
    ];
    let roots = embedded.into_iter().filter_map(|(product, ark, ask)| {
        // A test reads all of these files; were one missing, the chains of its product would be undecided.
        let (ark, ask) = (Certificate::from_der(ark).ok()?, Certificate::from_der(ask).ok());
        Some(Root { product, ark, ask })
    });
    Roots(roots.collect())
});

const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
/// Each part of the TCB has an arc below it.
const SPL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

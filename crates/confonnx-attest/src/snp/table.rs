//! The table of certificates that a host gives with a report: "SNP Extended Guest Request" of AMD's Guest-Hypervisor
//! Communication Block Standardization (56421).

use super::{Endorsements, Report, SigningKey};
use crate::x509::{Certificate, Crl, certificates_from_pem};

/// What of the table endorses the report. The host wrote the table, so what cannot be read is left out: AMD's service
/// has it too.
pub(super) fn endorsements(report: &Report, table: &[u8]) -> Endorsements {
    let mut found = Endorsements::default();
    for (guid, bytes) in entries(table) {
        match guid {
            VCEK => found.vcek = certificate(bytes),
            VLEK => found.vlek = certificate(bytes),
            // The table has one name for ASK and ASVK: it is the one that issued the signing key.
            ASK if report.signing_key() == SigningKey::Vlek => found.asvk = certificate(bytes),
            ASK => found.ask = certificate(bytes),
            CRL => found.crl = Crl::from_der(bytes).ok(),
            _ => {}
        }
    }
    found
}

/// The entries of the table up to the one that is all zeros; those whose bytes lie outside of the table are left out.
fn entries(table: &[u8]) -> impl Iterator<Item = ([u8; 16], &[u8])> {
    let (headers, _) = table.as_chunks::<24>();
    headers.iter().take_while(|header| header.iter().any(|&byte| byte != 0)).filter_map(|header| {
        let (guid, rest) = header.split_first_chunk::<16>()?;
        let (offset, rest) = rest.split_first_chunk::<4>()?;
        let (length, _) = rest.split_first_chunk::<4>()?;
        let from = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        Some((*guid, table.get(from..from.checked_add(length)?)?))
    })
}

/// Hosts give certificates in DER as a rule, some in PEM.
fn certificate(bytes: &[u8]) -> Option<Certificate> {
    Certificate::from_der(bytes).ok().or_else(|| {
        let chain = certificates_from_pem(std::str::from_utf8(bytes).ok()?).ok()?;
        chain.into_iter().next()
    })
}

const VCEK: [u8; 16] = 0x63da758d_e664_4564_adc5_f4b93be8accd_u128.to_be_bytes();
const VLEK: [u8; 16] = 0xa8074bc2_a25a_483e_aae6_39c045a0b8a1_u128.to_be_bytes();
const ASK: [u8; 16] = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782_u128.to_be_bytes();
const CRL: [u8; 16] = 0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea_u128.to_be_bytes();

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use sev::firmware::host::CertType;

    use super::*;
    use crate::snp::Evidence;
    use crate::snp::tests::Made;

    /// The table of a host that has the endorsements of `evidence`.
    pub(in crate::snp) fn of(evidence: &Evidence) -> Vec<u8> {
        let Endorsements { vcek, ask, .. } = evidence.endorsements.as_ref();
        table(&[(VCEK, vcek.as_ref().unwrap().der()), (ASK, ask.as_ref().unwrap().der())])
    }

    /// A table as hosts write it.
    fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut offset = 24 * (entries.len() + 1);
        let mut headers = Vec::new();
        let mut bodies: Vec<u8> = Vec::new();
        for (guid, bytes) in entries {
            headers.extend(guid);
            headers.extend((offset as u32).to_le_bytes());
            headers.extend((bytes.len() as u32).to_le_bytes());
            bodies.extend(*bytes);
            offset += bytes.len();
        }
        headers.resize(24 * (entries.len() + 1), 0);
        headers.extend(bodies);
        headers.resize(headers.len().next_multiple_of(4096), 0);
        headers
    }

    fn pem(certificate: &Certificate) -> String {
        use base64ct::{Base64, Encoding};
        let body = Base64::encode_string(certificate.der());
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn names_are_those_of_the_peer() {
        for (ours, theirs) in
            [(VCEK, CertType::VCEK), (VLEK, CertType::VLEK), (ASK, CertType::ASK), (CRL, CertType::CRL)]
        {
            let expected = format!("{:032x}", u128::from_be_bytes(ours));
            assert_eq!(theirs.to_string().replace('-', ""), expected);
        }
    }

    #[test]
    fn a_table_gives_what_endorses_the_report() {
        let evidence = Made::crl().evidence().1;
        let Endorsements { vcek, ask, crl, .. } = evidence.endorsements.as_ref();
        let (vcek, ask, crl) = (vcek.as_ref().unwrap(), ask.as_ref().unwrap(), crl.as_ref().unwrap());
        let bytes = table(&[(CRL, crl.der()), (VCEK, vcek.der()), ([7; 16], b"other"), (ASK, ask.der())]);
        assert_eq!(endorsements(&evidence.report, &bytes), *evidence.endorsements);
        let bytes = table(&[(CRL, crl.der()), (VCEK, pem(vcek).as_bytes()), (ASK, pem(ask).as_bytes())]);
        assert_eq!(endorsements(&evidence.report, &bytes), *evidence.endorsements);
        let evidence = Made::vlek().evidence().1;
        let Endorsements { vlek, asvk, .. } = evidence.endorsements.as_ref();
        let bytes = table(&[(VLEK, vlek.as_ref().unwrap().der()), (ASK, asvk.as_ref().unwrap().der())]);
        assert_eq!(endorsements(&evidence.report, &bytes), *evidence.endorsements);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let evidence = Made::new().evidence().1;
        let vcek = evidence.endorsements.vcek.as_ref().unwrap();
        let none = Endorsements::default();
        let found = |bytes: &[u8]| endorsements(&evidence.report, bytes);
        let good = table(&[(VCEK, vcek.der())]);
        assert!(found(&good).vcek.is_some());
        assert_eq!(found(&[]), none);
        assert_eq!(found(&good[..100]), none);
        assert_eq!(found(&table(&[(VCEK, b"not a certificate"), (CRL, b"nor this")])), none);
        let mut outside = good;
        outside[16..24].fill(0xff);
        assert_eq!(found(&outside), none);
    }

    proptest! {
        #[test]
        fn no_table_panics(table in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, bytes) in entries(&table) {
                prop_assert!(bytes.len() <= table.len());
            }
        }
    }
}

//! The authorities whose word is taken for a service's name.

use std::path::{Path, PathBuf};

use confonnx_attest::Digest;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use sha2::{Digest as _, Sha256};

/// Certificates of authorities.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// SHA-256 of their SHA-256s, sorted.
    pub(super) sha256: Digest,
}

/// Why there are no authorities.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("authorities {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has none that can be used.
    #[error("authorities {}: expected certificates of authorities in PEM", .0.display())]
    Empty(PathBuf),
    /// The system has none.
    #[error(
        "this machine has no root certificates for https: install ca-certificates, or name a file with those of the service"
    )]
    NoSystem,
}

impl Roots {
    /// The authorities in `file`, or the system's.
    pub(super) fn load(file: Option<&Path>) -> Result<Self, RootsError> {
        let certificates = match file {
            None => rustls_native_certs::load_native_certs().certs,
            Some(path) => {
                let pem = std::fs::read(path)
                    .map_err(|source| RootsError::Read { path: path.to_owned(), source })?;
                let certificates: Result<_, _> = CertificateDer::pem_slice_iter(&pem).collect();
                certificates.map_err(|_| RootsError::Empty(path.to_owned()))?
            }
        };
        let roots = Self::new(certificates);
        if roots.store.is_empty() {
            return Err(file.map_or(RootsError::NoSystem, |path| RootsError::Empty(path.to_owned())));
        }
        Ok(roots)
    }

    fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        // A bundle may have some that this TLS cannot use: they are not trusted, and so not counted.
        let mut digests: Vec<[u8; 32]> = certificates
            .into_iter()
            .filter_map(|certificate| {
                let digest = Sha256::digest(&certificate).into();
                store.add(certificate).ok().map(|()| digest)
            })
            .collect();
        digests.sort_unstable();
        digests.dedup();
        Self { store, sha256: Digest(Sha256::digest(digests.concat()).into()) }
    }
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};

    use super::*;

    /// What docs/guides/key-services.md tells users to run on it is `openssl x509 -outform DER | openssl dgst -sha256 -binary | openssl
    /// dgst -sha256`.
    #[test]
    fn authorities_have_a_digest_whatever_their_order() {
        let made = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
        };
        let pem = |certificate: &rcgen::Certificate| {
            let body = Base64::encode_string(certificate.der());
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let (one, other) = (made("one"), made("other"));
        let digest = |pems: &[String]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), pems.concat()).unwrap();
            Roots::load(Some(file.path())).map(|roots| roots.sha256)
        };
        let both = digest(&[pem(&one), pem(&other)]).unwrap();
        assert_eq!(digest(&[pem(&other), pem(&one), pem(&one)]).unwrap(), both);
        let single = Digest(Sha256::digest(Sha256::digest(one.der())).into());
        assert_eq!(digest(&[pem(&one)]).unwrap(), single);
        assert_ne!(single, both);
        assert!(matches!(digest(&[]), Err(RootsError::Empty(_))));
        assert!(matches!(digest(&["not PEM".into()]), Err(RootsError::Empty(_))));
        let absent = Roots::load(Some(Path::new("/nowhere/ca.pem"))).err().unwrap();
        assert!(absent.to_string().contains("/nowhere/ca.pem"), "{absent}");
    }
}

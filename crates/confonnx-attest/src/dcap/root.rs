//! Where every chain of Intel's ends.

use crate::x509::Certificate;

/// The certificate to which every chain has to lead.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(super) certificate: Certificate,
}

impl Root {
    /// Intel's root, from its provisioning certification service; valid until 2049.
    pub(crate) fn intel() -> Option<Self> {
        // A test makes sure that the file can be read.
        Certificate::from_der(include_bytes!("intel-sgx-root-ca.der")).ok().map(Self::new)
    }

    pub(super) fn new(certificate: Certificate) -> Self {
        Self { certificate }
    }
}

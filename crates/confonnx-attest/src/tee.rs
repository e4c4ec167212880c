//! The kinds of trusted execution environment: the one list of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Hands `$with!` every kind of hardware, a row each: what it is, its variant, its folder. The folder's name is also that on
/// the wire, and of the section in policy files.
///
/// [`Tee`], [`Evidence`](crate::Evidence) with its facts and errors, the sections of [`Platforms`](crate::Platforms) and
/// `Attester` are made of these rows; a folder has to have what `contract` wants. The insecure stand-in is no row: it is
/// behind a feature, has no section, and each of the four spells it out.
macro_rules! for_each_tee {
    ($with:ident) => {
        $with! {
            /// An Azure confidential VM: the paravisor's report and its vTPM's quote.
            Azure azure;
            /// An AWS Nitro enclave.
            Nitro nitro;
            /// An Intel SGX enclave.
            Sgx sgx;
            /// An AMD SEV-SNP guest.
            Snp snp;
            /// An Intel TDX trust domain.
            Tdx tdx;
            /// A machine with measured boot and a TPM 2.0.
            Tpm tpm;
        }
    };
}
pub(crate) use for_each_tee;

macro_rules! tee {
    ($($(#[$doc:meta])* $kind:ident $folder:ident;)*) => {
        /// The kinds of trusted execution environment.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Tee {
            /// A software stand-in for development. It protects nothing.
            Insecure,
            $($(#[$doc])* $kind,)*
        }

        impl Tee {
            /// The TEE's name on the wire, in policy files and in messages.
            pub fn name(self) -> &'static str {
                match self {
                    Self::Insecure => "insecure",
                    $(Self::$kind => stringify!($folder),)*
                }
            }
        }
    };
}
for_each_tee!(tee);

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

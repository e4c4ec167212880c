//! Making evidence, inside a TEE. The one part of this crate that does IO.

use std::fs::File;
use std::io;

use sha2::Sha256;

#[cfg(feature = "insecure-dev")]
use crate::insecure;
use crate::tee::for_each_tee;
use crate::{Digest, Evidence, Tee};

pub use crate::tsm::TsmError;

macro_rules! attesters {
    ($($(#[$doc:meta])* $kind:ident $folder:ident;)*) => {
        /// A source of evidence.
        #[derive(Debug)]
        pub enum Attester {
            /// The software stand-in.
            #[cfg(feature = "insecure-dev")]
            Insecure {
                /// What the insecure TEE reports as measurement.
                measurement: Digest,
            },
            $($(#[$doc])* $kind(crate::$folder::Device),)*
        }

        /// Why there is no evidence.
        #[derive(Debug, thiserror::Error)]
        pub enum ProduceError {
            /// The running executable cannot be read.
            #[error("cannot read the running executable ({path}) to measure it: {source}")]
            Executable {
                /// The path at which the executable was looked for.
                path: &'static str,
                /// What the operating system said.
                source: io::Error,
            },
            $(
                #[doc = concat!("The device of `", stringify!($folder), "` gives no evidence.")]
                #[error(transparent)]
                $kind(#[from] crate::$folder::DeviceError),
            )*
        }

        impl Attester {
            /// The TEE that the attester is part of.
            pub fn tee(&self) -> Tee {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure { .. } => Tee::Insecure,
                    $(Self::$kind(_) => Tee::$kind,)*
                }
            }

            /// Evidence that carries `report_data`. May block on the device for some 100 ms.
            pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, ProduceError> {
                Ok(match self {
                    #[cfg(feature = "insecure-dev")]
                    &Self::Insecure { measurement } => {
                        Evidence::Insecure(insecure::Report { report_data: *report_data, measurement, validity: None })
                    }
                    $(Self::$kind(device) => Evidence::$kind(device.evidence(report_data)?),)*
                })
            }
        }
    };
}
for_each_tee!(attesters);

impl Attester {
    /// The software stand-in, which reports `measurement` (see [`measure_executable`]).
    #[cfg(feature = "insecure-dev")]
    pub fn insecure(measurement: Digest) -> Self {
        Self::Insecure { measurement }
    }
}

/// SHA-256 of the executable of this process.
pub fn measure_executable() -> Result<Digest, ProduceError> {
    let unreadable = |source| ProduceError::Executable { path: EXECUTABLE, source };
    let mut hash = HashWriter(Sha256::default());
    io::copy(&mut File::open(EXECUTABLE).map_err(unreadable)?, &mut hash).map_err(unreadable)?;
    Ok(Digest(sha2::Digest::finalize(hash.0).into()))
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(&mut self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel's link to the running file: right even when the path was replaced meanwhile.
const EXECUTABLE: &str = "/proc/self/exe";

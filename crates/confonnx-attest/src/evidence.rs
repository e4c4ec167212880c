//! Evidence of each TEE, and what it proves.

use serde_json::{Map, Value};

use crate::collateral::{Answer, Request, StapleError};
use crate::contract::Attested;
#[cfg(feature = "insecure-dev")]
use crate::insecure;
use crate::measured::Measured;
use crate::tee::for_each_tee;
use crate::{Tee, UnixTime, Verdict};

macro_rules! evidence {
    ($($(#[$doc:meta])* $kind:ident $folder:ident;)*) => {
        /// A TEE's statement about the program it runs and the 64 bytes that program asked it to include, with what it
        /// takes to check it without a network.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Evidence {
            /// The software stand-in.
            #[cfg(feature = "insecure-dev")]
            Insecure(insecure::Report),
            $($(#[$doc])* $kind(crate::$folder::Evidence),)*
        }

        /// What only one kind of TEE says.
        #[derive(Debug)]
        pub(crate) enum Facts {
            #[cfg(feature = "insecure-dev")]
            Insecure,
            $($kind(crate::$folder::Facts),)*
        }

        impl Facts {
            /// The number of Intel's TCB recovery event that the collateral knows of, where there is one.
            pub(crate) fn tcb_evaluation(&self) -> Option<u32> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure => None,
                    $(Self::$kind(facts) => facts.tcb_evaluation(),)*
                }
            }
        }

        /// Evidence that cannot be read.
        #[derive(Debug, thiserror::Error)]
        pub enum EvidenceError {
            /// The TEE is unknown, or this build was made without it.
            #[error("expected evidence of a TEE this build can verify ({}), found `{found}`", KNOWN.join(", "))]
            Tee {
                /// The document's TEE name, shortened.
                found: String,
            },
            /// The insecure TEE's report is malformed.
            #[cfg(feature = "insecure-dev")]
            #[error("malformed report of the insecure TEE: {0}")]
            Insecure(insecure::ReportError),
            $(
                #[doc = concat!("Evidence of `", stringify!($folder), "` is malformed.")]
                #[error("malformed evidence of `{name}`: {0}", name = stringify!($folder))]
                $kind(crate::$folder::ParseError),
            )*
        }

        impl Evidence {
            /// The TEE that made the evidence.
            pub fn tee(&self) -> Tee {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(_) => Tee::Insecure,
                    $(Self::$kind(_) => Tee::$kind,)*
                }
            }

            /// Reads `report` and `endorsements` of a document's `evidence` (protocol.md 2.2).
            pub fn parse(
                tee: &str,
                report: &[u8],
                endorsements: &Map<String, Value>,
            ) -> Result<Self, EvidenceError> {
                match tee {
                    #[cfg(feature = "insecure-dev")]
                    "insecure" => {
                        let read = Attested::parse(report, endorsements);
                        read.map(Self::Insecure).map_err(EvidenceError::Insecure)
                    }
                    $(name if name == stringify!($folder) => {
                        let read = Attested::parse(report, endorsements);
                        read.map(Self::$kind).map_err(EvidenceError::$kind)
                    })*
                    _ => Err(EvidenceError::Tee { found: tee.chars().take(32).collect() }),
                }
            }

            /// The raw bytes of the document's `report`.
            pub(crate) fn report(&self) -> Vec<u8> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(report) => report.report(),
                    $(Self::$kind(evidence) => evidence.report(),)*
                }
            }

            /// The document's `endorsements`.
            pub(crate) fn endorsements(&self) -> Map<String, Value> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(report) => report.endorsements(),
                    $(Self::$kind(evidence) => evidence.endorsements(),)*
                }
            }

            /// What to fetch of the TEE's vendor so that a client can verify this evidence without a network; empty when
            /// nothing is needed.
            pub fn collateral_requests(&self) -> Vec<Request> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(report) => report.collateral_requests(),
                    $(Self::$kind(evidence) => evidence.collateral_requests(),)*
                }
            }

            /// Staples the vendor's `answers` to the requests of [`collateral_requests`](Self::collateral_requests), in
            /// their order; `None` stands for one that is not at hand, and what does without it is stapled all the same.
            /// Whether they are genuine is decided by who verifies.
            ///
            /// # Errors
            /// See [`StapleError`]; nothing was stapled then.
            pub fn staple(&mut self, answers: &[Option<&Answer>]) -> Result<(), StapleError> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(report) => report.staple(answers),
                    $(Self::$kind(evidence) => evidence.staple(answers),)*
                }
            }

            /// What the evidence says was measured, before anything of it is verified.
            pub(crate) fn says(&self) -> Option<crate::EnclaveHash> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(report) => report.says(),
                    $(Self::$kind(evidence) => evidence.says(),)*
                }
            }

            /// As [`verify`](Self::verify), whatever report data the evidence carries.
            pub(crate) fn verify_whatever_it_carries(
                &self,
                now: UnixTime,
                verdict: &mut Verdict,
            ) -> Option<Measured<Facts>> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(report) => {
                        Some(report.verify_whatever_it_carries(now, verdict)?.map(|()| Facts::Insecure))
                    }
                    $(Self::$kind(evidence) => {
                        Some(evidence.verify_whatever_it_carries(now, verdict)?.map(Facts::$kind))
                    })*
                }
            }

            /// Checks signatures and report data at `now`; says what the TEE measured, or nothing when the evidence does
            /// not say it. Makes every check, whatever the others say.
            pub(crate) fn verify(
                &self,
                report_data: &[u8; 64],
                now: UnixTime,
                verdict: &mut Verdict,
            ) -> Option<Measured<Facts>> {
                match self {
                    #[cfg(feature = "insecure-dev")]
                    Self::Insecure(report) => {
                        let measured = Attested::verify(report, report_data, now, verdict)?;
                        Some(measured.map(|()| Facts::Insecure))
                    }
                    $(Self::$kind(evidence) => {
                        let measured = Attested::verify(evidence, report_data, now, verdict)?;
                        Some(measured.map(Facts::$kind))
                    })*
                }
            }
        }

        /// The TEEs whose evidence this build reads.
        const KNOWN: &[&str] = &[
            $(stringify!($folder),)*
            #[cfg(feature = "insecure-dev")]
            "insecure",
        ];
    };
}
for_each_tee!(evidence);

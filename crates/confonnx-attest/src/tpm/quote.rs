//! Quotes: a TPM's signed statement about its PCRs (TPM 2.0 library, part 2, 10.12).

use sha2::{Digest as _, Sha256};

use super::AkPublic;
use super::algorithm::SHA256;
use super::pcrs::{Pcrs, list};
use super::signature::Signature;
use super::wire::{Reader, WireError};
use crate::Verdict;
use crate::digest::encode;

/// A quote with its signature, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    message: Vec<u8>,
    signature_bytes: Vec<u8>,
    attest: Attest,
    signature: Signature,
}

/// Bytes that are no quote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// The message is not a TPMS_ATTEST of a quote over SHA-256 PCRs.
    #[error("not a quote (TPMS_ATTEST): {0}")]
    Attest(WireError),
    /// The signature is not a TPMT_SIGNATURE of an accepted scheme.
    #[error("not a quote's signature (TPMT_SIGNATURE): {0}")]
    Signature(WireError),
}

/// What a verified quote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Milliseconds the TPM has been powered, over all its life.
    pub clock: u64,
    /// How many times the TPM was reset (the machine restarted).
    pub reset_count: u32,
    /// How many times the TPM was resumed or restarted without a reset since.
    pub restart_count: u32,
    /// Whether `clock` has never been set back.
    pub safe: bool,
    /// The TPM's firmware version, in its vendor's encoding.
    pub firmware_version: u64,
}

/// How two checks are called, which depends on what else the evidence has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) signature: &'static str,
    pub(crate) data: &'static str,
}

impl Quote {
    /// Reads a TPMS_ATTEST and a TPMT_SIGNATURE.
    pub fn parse(message: &[u8], signature: &[u8]) -> Result<Self, QuoteError> {
        Ok(Self {
            attest: Attest::parse(message).map_err(QuoteError::Attest)?,
            signature: Signature::parse(signature).map_err(QuoteError::Signature)?,
            message: message.to_vec(),
            signature_bytes: signature.to_vec(),
        })
    }

    /// The TPMS_ATTEST.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The TPMT_SIGNATURE.
    pub fn signature(&self) -> &[u8] {
        &self.signature_bytes
    }

    /// What the quote was asked to carry.
    pub(crate) fn data(&self) -> &[u8] {
        &self.attest.extra_data
    }

    /// The indices of the PCRs that the quote covers, ascending.
    pub fn selection(&self) -> &[u8] {
        &self.attest.selection
    }

    /// Whether the TPM says that the key of that name signed it: one made directly in a hierarchy, whose qualified name is
    /// of the hierarchy's handle and its own (part 1, 16). A restricted key signs no message that says otherwise.
    pub(super) fn is_signed_by(&self, name: &[u8; 32]) -> bool {
        let name = [&SHA256.to_be_bytes(), &name[..]].concat();
        HIERARCHIES.iter().any(|handle| {
            let digest = Sha256::new().chain_update(handle.to_be_bytes()).chain_update(&name).finalize();
            self.attest.signer == [&SHA256.to_be_bytes(), &digest[..]].concat()
        })
    }

    /// Whether the quote is over just those values.
    #[cfg(feature = "produce")]
    pub(super) fn is_of(&self, pcrs: &Pcrs) -> bool {
        pcrs.0.keys().eq(&self.attest.selection)
            && pcrs.digest(self.signature.hash()) == self.attest.pcr_digest
    }

    /// Checks that `ak` signed the quote over `data` and `pcrs`; gives what else the quote says when all of that holds.
    /// Whose key `ak` is, is not decided here.
    pub(crate) fn verify(
        &self,
        ak: &AkPublic,
        data: &[u8],
        pcrs: &Pcrs,
        names: Names,
        verdict: &mut Verdict,
    ) -> Option<Quoted> {
        let signed = ak.verifies(&self.message, &self.signature);
        let (kind, scheme) = (ak.kind(), self.signature.scheme());
        let found =
            if signed { format!("{kind}, {scheme}") } else { format!("no such signature ({scheme})") };
        verdict.decide(
            names.signature,
            format!("a quote signed by the {kind} attestation key"),
            found,
            signed,
        );
        let bound = self.attest.extra_data == data;
        verdict.equal(names.data, encode(data), encode(&self.attest.extra_data));
        let digest = pcrs.digest(self.signature.hash());
        let covered = pcrs.0.keys().eq(&self.attest.selection);
        let (expected, found) = (list(pcrs.0.keys()), list(&self.attest.selection));
        verdict.decide("pcr selection", format!("pcrs {expected}"), format!("pcrs {found}"), covered);
        verdict.equal("pcr digest", encode(&digest), encode(&self.attest.pcr_digest));
        (signed && bound && covered && digest == self.attest.pcr_digest).then_some(self.attest.quoted)
    }
}

/// A TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attest {
    /// The qualified name of the key that signed: of its own name and those of its parents.
    signer: Vec<u8>,
    extra_data: Vec<u8>,
    quoted: Quoted,
    /// The indices of the PCRs, ascending.
    selection: Vec<u8>,
    pcr_digest: Vec<u8>,
}

impl Attest {
    fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32("magic")?;
        if magic != GENERATED {
            let expected = "0xff544347 (made by a TPM)";
            return Err(WireError::Value { field: "magic", expected, found: magic.into() });
        }
        reader.expect_u16("type", "0x8018 (a quote)", ATTEST_QUOTE)?;
        let signer = reader.sized("qualifiedSigner")?.to_vec();
        let extra_data = reader.sized("extraData")?.to_vec();
        let clock = reader.u64("clock")?;
        let reset_count = reader.u32("resetCount")?;
        let restart_count = reader.u32("restartCount")?;
        let safe = match reader.u8("safe")? {
            0 => false,
            1 => true,
            found => {
                return Err(WireError::Value { field: "safe", expected: "0 or 1", found: found.into() });
            }
        };
        let firmware_version = reader.u64("firmwareVersion")?;
        let selection = parse_selection(&mut reader)?;
        let pcr_digest = reader.sized("pcrDigest")?.to_vec();
        reader.finish()?;
        let quoted = Quoted { clock, reset_count, restart_count, safe, firmware_version };
        Ok(Self { signer, extra_data, quoted, selection, pcr_digest })
    }
}

/// A TPML_PCR_SELECTION of PCRs of the SHA-256 bank alone, as indices.
pub(super) fn parse_selection(reader: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    let banks = reader.u32("pcrSelect.count")?;
    if banks != 1 {
        let expected = "1 (the SHA-256 bank alone)";
        return Err(WireError::Value { field: "pcrSelect.count", expected, found: banks.into() });
    }
    reader.expect_u16("pcrSelect.hash", "0xb (SHA-256)", SHA256)?;
    let len = reader.u8("sizeofSelect")?;
    if !(1..=4).contains(&len) {
        return Err(WireError::Value { field: "sizeofSelect", expected: "1 to 4", found: len.into() });
    }
    let bits = reader.bytes("pcrSelect", len.into())?;
    let selected = |index: &u8| {
        let byte = bits.get(usize::from(index / 8)).copied().unwrap_or_default();
        byte >> (index % 8) & 1 == 1
    };
    Ok((0..32).filter(selected).collect())
}

/// The hierarchies of the owner, of endorsement, of the platform.
const HIERARCHIES: [u32; 3] = [0x4000_0001, 0x4000_000b, 0x4000_000c];
const GENERATED: u32 = 0xff54_4347;
const ATTEST_QUOTE: u16 = 0x8018;

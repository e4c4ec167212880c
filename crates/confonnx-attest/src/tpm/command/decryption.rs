//! Keys to which others can encrypt, certified by an attestation key.
//!
//! The key is made anew from random bytes and never leaves the TPM, which uses it only while PCRs have the values that they
//! had when it was made.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Command, CommandError, Handle, NONE, PASSWORD, Tpm, Writer, selection};
use crate::tpm::Pcrs;
use crate::tpm::algorithm::{NULL, OAEP, RSA, RSAES, SHA256};
use crate::tpm::wire::Reader;

/// A key to which others can encrypt, in a TPM, until that is closed.
#[derive(Debug)]
pub(crate) struct DecryptionKey {
    handle: Handle,
    pcrs: Vec<u8>,
    /// The key's TPM2B_PUBLIC.
    pub(crate) public: Vec<u8>,
    /// The certificate: a TPMS_ATTEST, and its TPMT_SIGNATURE by the attestation key.
    pub(crate) certified: (Vec<u8>, Vec<u8>),
}

/// How something is encrypted to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// RSAES-PKCS1-v1_5.
    Pkcs1,
    /// RSAES-OAEP with SHA-256, also for its mask, and an empty label.
    Oaep,
}

impl Tpm {
    /// TPM2_ReadPublic, as the TPM says it: a TPM2B_PUBLIC.
    pub(crate) fn read_public_area(&mut self, key: Handle) -> Result<Vec<u8>, CommandError> {
        let command = Command { name: "ReadPublic", code: 0x173, handles: &[key], sessions: NONE };
        let answer = self.run(&command, &[])?;
        let public = Reader::new(&answer).sized("outPublic").map_err(|source| command.malformed(source))?;
        Ok(sized(public))
    }

    /// TPM2_CreatePrimary of the hierarchy that ends with the machine's run, and TPM2_Certify by `ak`: an RSA key that is
    /// another one for each `unique`, and only for PCRs as they are in `pcrs`.
    pub(crate) fn create_decryption_key(
        &mut self,
        ak: Handle,
        pcrs: &Pcrs,
        unique: &[u8; 256],
    ) -> Result<DecryptionKey, CommandError> {
        let indices: Vec<u8> = pcrs.0.keys().copied().collect();
        let mut template = Writer::default();
        template.u16(RSA).u16(SHA256).u32(ATTRIBUTES).sized(&policy(&indices, pcrs));
        // No symmetric algorithm, any scheme, 2,048 bits, the usual exponent.
        template.u16(NULL).u16(NULL).u16(2048).u32(0).sized(unique);
        let mut parameters = Writer::default();
        parameters.sized(&[0; 4]).sized(&template.0).u16(0).u32(0);
        let create =
            Command { name: "CreatePrimary", code: 0x131, handles: &[NULL_HIERARCHY], sessions: PASSWORD };
        let (handle, answer) = self.run_for_handle(&create, &parameters.0)?;
        self.transient.push(handle);
        let public = Reader::new(&answer).sized("outPublic").map_err(|source| create.malformed(source))?;

        let mut parameters = Writer::default();
        parameters.u16(0).u16(NULL);
        let certify =
            Command { name: "Certify", code: 0x148, handles: &[handle, ak], sessions: BOTH_PASSWORDS };
        let answer = self.run(&certify, &parameters.0)?;
        let mut reader = Reader::new(&answer);
        let statement = reader.sized("certifyInfo").map_err(|source| certify.malformed(source))?;
        let certified = (statement.to_vec(), reader.rest().to_vec());
        Ok(DecryptionKey { handle, pcrs: indices, public: sized(public), certified })
    }

    /// TPM2_RSA_Decrypt, for as long as the PCRs are as they were.
    pub(crate) fn decrypt(
        &mut self,
        key: &DecryptionKey,
        ciphertext: &[u8],
        padding: Padding,
    ) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        let session = self.start_session()?;
        let decrypted = self
            .bind(session, &key.pcrs)
            .and_then(|()| self.decrypt_within(session, key, ciphertext, padding));
        if decrypted.is_err() {
            // The session ends with the command that it authorizes, and with no other.
            self.flush(session);
        }
        decrypted
    }

    fn decrypt_within(
        &mut self,
        session: Handle,
        key: &DecryptionKey,
        ciphertext: &[u8],
        padding: Padding,
    ) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        let mut parameters = Writer::default();
        parameters.sized(ciphertext);
        match padding {
            Padding::Pkcs1 => parameters.u16(RSAES),
            Padding::Oaep => parameters.u16(OAEP).u16(SHA256),
        };
        parameters.u16(0);
        let command =
            Command { name: "RSA_Decrypt", code: 0x159, handles: &[key.handle], sessions: &[session] };
        let answer = self.run(&command, &parameters.0)?;
        let message = Reader::new(&answer).sized("message").map_err(|source| command.malformed(source))?;
        Ok(message.to_vec().into())
    }

    /// TPM2_StartAuthSession: a session that authorizes nothing yet.
    fn start_session(&mut self) -> Result<Handle, CommandError> {
        let mut parameters = Writer::default();
        // Nothing is computed with the nonce: there is neither salt nor password.
        parameters.sized(&[0; 16]).u16(0).bytes(&[POLICY_SESSION]).u16(NULL).u16(SHA256);
        let start = Command {
            name: "StartAuthSession",
            code: 0x176,
            handles: &[NULL_HIERARCHY, NULL_HIERARCHY],
            sessions: NONE,
        };
        Ok(self.run_for_handle(&start, &parameters.0)?.0)
    }

    /// TPM2_PolicyPCR: the session authorizes what the PCRs' values allow.
    fn bind(&mut self, session: Handle, indices: &[u8]) -> Result<(), CommandError> {
        let mut parameters = Writer::default();
        parameters.u16(0).bytes(&selection(indices));
        let policy = Command { name: "PolicyPCR", code: 0x17f, handles: &[session], sessions: NONE };
        self.run(&policy, &parameters.0).map(drop)
    }
}

/// The digest of TPM2_PolicyPCR (part 3, 23.7): of none before, the command, the selection and the digest of the values.
fn policy(indices: &[u8], pcrs: &Pcrs) -> [u8; 32] {
    let mut values = Sha256::new();
    pcrs.0.values().for_each(|value| values.update(value));
    Sha256::new()
        .chain_update([0; 32])
        .chain_update(0x17f_u32.to_be_bytes())
        .chain_update(selection(indices))
        .chain_update(values.finalize())
        .finalize()
        .into()
}

/// A TPM2B.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut all = Writer::default();
    all.sized(bytes);
    all.0
}

/// TPM_RH_NULL: as a hierarchy, one whose seed ends with the machine's run; as a key, none.
const NULL_HIERARCHY: Handle = Handle(0x4000_0007);
const BOTH_PASSWORDS: &[Handle] = &[Handle(0x4000_0009); 2];
const POLICY_SESSION: u8 = 1;
/// fixedTPM, fixedParent, sensitiveDataOrigin, noDA, decrypt: used by policy alone.
const ATTRIBUTES: u32 = 0x0002_0432;

//! Commands to a TPM (TPM 2.0 library, part 3), as far as evidence needs them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::algorithm::{ECC, ECDSA, NULL, P256, SHA256};
use super::quote::parse_selection;
use super::wire::{Reader, WireError};
use super::{AkPublic, KeyError, Pcrs, Quote, QuoteError};

mod decryption;

pub(crate) use decryption::{DecryptionKey, Padding};

/// An open TPM. Keys it made are flushed when it is dropped.
#[derive(Debug)]
pub(crate) struct Tpm {
    transport: Transport,
    path: PathBuf,
    transient: Vec<Handle>,
}

/// A TPM_HANDLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) u32);

/// Why a TPM did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The device cannot be opened.
    #[error("cannot open the TPM {path}: {source} (is this user in the group of the device, usually `tss`?)")]
    Open {
        /// The device's path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The certificates above the key's own cannot be read.
    #[error("the certificates above the attestation key's in {path}: expected PEM, {source}")]
    Issuers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Talking to the TPM failed.
    #[error("the TPM {path} did not answer {command}: {source}")]
    Io {
        /// The device's path.
        path: PathBuf,
        /// The command.
        command: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The TPM refused the command.
    #[error("the TPM refused {command} with code {code:#x}{}", hint(*.code))]
    Refused {
        /// The command.
        command: &'static str,
        /// The answer's code, a TPM_RC.
        code: u32,
    },
    /// The TPM's answer cannot be read.
    #[error("the TPM's answer to {command} is malformed: {source}")]
    Answer {
        /// The command.
        command: &'static str,
        /// What is wrong with the answer.
        source: WireError,
    },
    /// The TPM made a key that cannot be used.
    #[error("the TPM made a key that cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The TPM made a quote that cannot be read.
    #[error("the TPM made {0}")]
    Quote(#[from] QuoteError),
    /// The TPM has no SHA-256 values of some PCRs.
    #[error(
        "the TPM has no SHA-256 value of PCR {index}: enable the SHA-256 bank in the firmware's settings"
    )]
    Pcr {
        /// The first such PCR.
        index: u8,
    },
    /// Values changed between reading and quoting them, again and again.
    #[error("the TPM's PCRs keep changing: something extends them all the time")]
    Unstable,
}

#[derive(Debug)]
enum Transport {
    Device(File),
    /// A socket, as emulators have it.
    Socket(UnixStream),
}

impl Tpm {
    /// Opens a TPM: a character device, or a Unix socket that speaks as such a device does.
    pub(crate) fn open(path: &Path) -> Result<Self, CommandError> {
        let unusable = |source| CommandError::Open { path: path.to_owned(), source };
        let kind = path.metadata().map_err(unusable)?.file_type();
        let transport = if kind.is_socket() {
            Transport::Socket(UnixStream::connect(path).map_err(unusable)?)
        } else {
            Transport::Device(OpenOptions::new().read(true).write(true).open(path).map_err(unusable)?)
        };
        Ok(Self { transport, path: path.to_owned(), transient: Vec::new() })
    }

    /// TPM2_CreatePrimary of the endorsement hierarchy: a key for signing quotes, always the same one of this TPM until
    /// its owner changes the endorsement seed.
    pub(crate) fn create_ak(&mut self) -> Result<(Handle, AkPublic), CommandError> {
        self.create_primary(&ak_template())
    }

    /// TPM2_CreatePrimary of the endorsement hierarchy, which has no password, by a template (TPMT_PUBLIC).
    pub(crate) fn create_primary(&mut self, template: &[u8]) -> Result<(Handle, AkPublic), CommandError> {
        let mut parameters = Writer::default();
        // TPM2B_SENSITIVE_CREATE without password or data; the template; no outside info; no creation PCRs.
        parameters.sized(&[0; 4]).sized(template).u16(0).u32(0);
        let command =
            Command { name: "CreatePrimary", code: 0x131, handles: &[ENDORSEMENT], sessions: PASSWORD };
        let (handle, answer) = self.run_for_handle(&command, &parameters.0)?;
        self.transient.push(handle);
        let mut reader = Reader::new(&answer);
        let public = reader.sized("outPublic").map_err(|source| command.malformed(source))?;
        Ok((handle, AkPublic::from_tpmt(public)?))
    }

    /// TPM2_ReadPublic: the public part of a loaded or persistent key.
    pub(crate) fn read_public(&mut self, key: Handle) -> Result<AkPublic, CommandError> {
        let command = Command { name: "ReadPublic", code: 0x173, handles: &[key], sessions: NONE };
        let answer = self.run(&command, &[])?;
        let public = Reader::new(&answer).sized("outPublic").map_err(|source| command.malformed(source))?;
        Ok(AkPublic::from_tpmt(public)?)
    }

    /// TPM2_PCR_Read of the SHA-256 bank, which gives at most 8 values at a time.
    pub(crate) fn pcr_read(&mut self, indices: &[u8]) -> Result<Pcrs, CommandError> {
        let command = Command { name: "PCR_Read", code: 0x17e, handles: &[], sessions: NONE };
        let malformed = |source| command.malformed(source);
        let mut pcrs = Pcrs::default();
        for some in indices.chunks(8) {
            let answer = self.run(&command, &selection(some))?;
            let mut reader = Reader::new(&answer);
            reader.u32("pcrUpdateCounter").map_err(malformed)?;
            let returned = parse_selection(&mut reader).map_err(malformed)?;
            reader.u32("pcrValues.count").map_err(malformed)?;
            // PCRs that are not there are left out of the answer without an error.
            if let Some(&index) = some.iter().find(|index| !returned.contains(index)) {
                return Err(CommandError::Pcr { index });
            }
            for index in returned {
                let value = reader.sized("pcrValues").map_err(malformed)?;
                pcrs.0.insert(index, value.try_into().map_err(|_| CommandError::Pcr { index })?);
            }
        }
        Ok(pcrs)
    }

    /// TPM2_PCR_Extend of the SHA-256 bank.
    #[cfg(test)]
    pub(crate) fn pcr_extend(&mut self, index: u8, digest: &[u8; 32]) -> Result<(), CommandError> {
        let pcr = Handle(index.into());
        let mut parameters = Writer::default();
        parameters.u32(1).u16(SHA256).bytes(digest);
        let command = Command { name: "PCR_Extend", code: 0x182, handles: &[pcr], sessions: PASSWORD };
        self.run(&command, &parameters.0).map(drop)
    }

    /// TPM2_Quote of PCRs of the SHA-256 bank, with the scheme of the key.
    pub(crate) fn quote(&mut self, ak: Handle, data: &[u8], indices: &[u8]) -> Result<Quote, CommandError> {
        let mut parameters = Writer::default();
        parameters.sized(data).u16(NULL).bytes(&selection(indices));
        let command = Command { name: "Quote", code: 0x158, handles: &[ak], sessions: PASSWORD };
        let answer = self.run(&command, &parameters.0)?;
        let mut reader = Reader::new(&answer);
        let message = reader.sized("quoted").map_err(|source| command.malformed(source))?;
        Ok(Quote::parse(message, reader.rest())?)
    }

    /// PCRs with a quote over just their values.
    pub(crate) fn quote_with_values(
        &mut self,
        ak: Handle,
        data: &[u8],
        indices: &[u8],
    ) -> Result<(Quote, Pcrs), CommandError> {
        for _ in 0..ATTEMPTS {
            let pcrs = self.pcr_read(indices)?;
            let quote = self.quote(ak, data, indices)?;
            if quote.is_of(&pcrs) {
                return Ok((quote, pcrs));
            }
        }
        Err(CommandError::Unstable)
    }

    /// TPM2_NV_ReadPublic and TPM2_NV_Read: all of an NV index that its own empty password or the owner's may read.
    pub(crate) fn nv_read(&mut self, index: Handle) -> Result<Vec<u8>, CommandError> {
        let command = Command { name: "NV_ReadPublic", code: 0x169, handles: &[index], sessions: NONE };
        let answer = self.run(&command, &[])?;
        let (attributes, len) = nv_public(&answer).map_err(|source| command.malformed(source))?;
        let authorization = if attributes & NV_AUTHREAD == 0 { OWNER } else { index };
        let handles = [authorization, index];
        let command = Command { name: "NV_Read", code: 0x14e, handles: &handles, sessions: PASSWORD };
        let mut data = Vec::new();
        while let Some(left) = len.checked_sub(data.len()).filter(|&left| left > 0) {
            let mut parameters = Writer::default();
            // Size and offset fit: an index has at most 65,535 bytes.
            let size = u16::try_from(left.min(NV_CHUNK)).unwrap_or_default();
            parameters.u16(size).u16(u16::try_from(data.len()).unwrap_or_default());
            let answer = self.run(&command, &parameters.0)?;
            let chunk = Reader::new(&answer).sized("data").map_err(|source| command.malformed(source))?;
            if chunk.len() != usize::from(size) {
                return Err(command.malformed(WireError::Truncated { field: "data" }));
            }
            data.extend_from_slice(chunk);
        }
        Ok(data)
    }

    /// As [`nv_read`](Self::nv_read); `None` when there is no such index.
    pub(crate) fn nv_read_if_defined(&mut self, index: Handle) -> Result<Option<Vec<u8>>, CommandError> {
        match self.nv_read(index) {
            Err(CommandError::Refused { code: NO_SUCH_HANDLE, .. }) => Ok(None),
            data => data.map(Some),
        }
    }

    /// Does TPM2_FlushContext. The device's resource manager does that in the end; an emulator has none.
    fn flush(&mut self, handle: Handle) {
        let command = Command { name: "FlushContext", code: 0x165, handles: &[], sessions: NONE };
        let _ = self.run(&command, &handle.0.to_be_bytes());
    }

    /// Runs a command whose answer has parameters only.
    fn run(&mut self, command: &Command<'_>, parameters: &[u8]) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        let answer = self.transmit(command, parameters)?;
        command.parameters(Reader::new(&answer)).map_err(|source| command.malformed(source))
    }

    /// Runs a command whose answer has a handle before the parameters.
    fn run_for_handle(
        &mut self,
        command: &Command<'_>,
        parameters: &[u8],
    ) -> Result<(Handle, Zeroizing<Vec<u8>>), CommandError> {
        let answer = self.transmit(command, parameters)?;
        let mut reader = Reader::new(&answer);
        let handle = reader.u32("handle").map_err(|source| command.malformed(source))?;
        let parameters = command.parameters(reader).map_err(|source| command.malformed(source))?;
        Ok((Handle(handle), parameters))
    }

    /// Sends a command and returns what follows the header of its answer. The kernel repeats commands to a busy TPM; an
    /// emulator leaves that to us.
    fn transmit(
        &mut self,
        command: &Command<'_>,
        parameters: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        let bytes = command.encode(parameters);
        let mut attempt = 0_u32;
        loop {
            let answer = match &mut self.transport {
                Transport::Device(file) => exchange(file, &bytes, true),
                Transport::Socket(stream) => exchange(stream, &bytes, false),
            };
            let failed = |source| CommandError::Io { path: self.path.clone(), command: command.name, source };
            match answer.map_err(failed)? {
                (0, body) => return Ok(body),
                (BUSY, _) if attempt < BUSY_ATTEMPTS => {
                    attempt = attempt.saturating_add(1);
                    std::thread::sleep(BUSY_PAUSE);
                }
                (code, _) => return Err(CommandError::Refused { command: command.name, code }),
            }
        }
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        for handle in std::mem::take(&mut self.transient) {
            self.flush(handle);
        }
    }
}

struct Command<'a> {
    name: &'static str,
    /// The command's code, a TPM_CC.
    code: u32,
    handles: &'a [Handle],
    /// The sessions that authorize the first handles, one for each.
    sessions: &'a [Handle],
}

impl Command<'_> {
    fn encode(&self, parameters: &[u8]) -> Vec<u8> {
        let mut body = Writer::default();
        for handle in self.handles {
            body.u32(handle.0);
        }
        if !self.sessions.is_empty() {
            // The size of the sessions; of each the handle, no nonce, no attributes, an empty password.
            body.u32(u32::try_from(self.sessions.len().saturating_mul(9)).unwrap_or_default());
            for session in self.sessions {
                body.u32(session.0).u16(0).bytes(&[0]).u16(0);
            }
        }
        body.bytes(parameters);
        let mut command = Writer::default();
        let len = u32::try_from(body.0.len().saturating_add(HEADER)).unwrap_or(u32::MAX);
        command
            .u16(if self.sessions.is_empty() { TAG_NO_SESSIONS } else { TAG_SESSIONS })
            .u32(len)
            .u32(self.code);
        command.bytes(&body.0);
        command.0
    }

    /// The parameters of an answer, without their size and the session's acknowledgement.
    fn parameters(&self, mut reader: Reader<'_>) -> Result<Zeroizing<Vec<u8>>, WireError> {
        if self.sessions.is_empty() {
            return Ok(reader.rest().to_vec().into());
        }
        let len = reader.u32("parameterSize")?;
        let len = usize::try_from(len).map_err(|_| WireError::Truncated { field: "parameters" })?;
        reader.bytes("parameters", len).map(|bytes| bytes.to_vec().into())
    }

    fn malformed(&self, source: WireError) -> CommandError {
        CommandError::Answer { command: self.name, source }
    }
}

/// Sends a command; returns the answer's code and what follows its header. A device gives an answer in one read, a
/// socket in as many as it takes.
fn exchange(
    stream: &mut (impl Read + Write),
    command: &[u8],
    in_one_read: bool,
) -> io::Result<(u32, Zeroizing<Vec<u8>>)> {
    stream.write_all(command)?;
    let mut answer = Zeroizing::new(vec![0; MAX_ANSWER]);
    let mut len = 0;
    loop {
        let read = stream.read(answer.get_mut(len..).unwrap_or_default())?;
        len = len.saturating_add(read);
        let received = answer.get(..len).unwrap_or_default();
        match answer_of(received)? {
            Some((code, body)) => return Ok((code, body.to_vec().into())),
            None if read == 0 || in_one_read => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}

/// The code and body of an answer; `None` as long as it is not complete.
fn answer_of(received: &[u8]) -> io::Result<Option<(u32, &[u8])>> {
    let mut reader = Reader::new(received);
    let header = (|| Ok::<_, WireError>((reader.u16("tag")?, reader.u32("size")?, reader.u32("code")?)))();
    let Ok((_, size, code)) = header else { return Ok(None) };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if !(HEADER..=MAX_ANSWER).contains(&size) || received.len() > size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its size is said to be {size}")));
    }
    Ok((received.len() == size).then_some((code, reader.rest())))
}

/// A TPML_PCR_SELECTION of the SHA-256 bank.
fn selection(indices: &[u8]) -> Vec<u8> {
    let mut bits = [0_u8; 3];
    for index in indices {
        if let Some(byte) = bits.get_mut(usize::from(index / 8)) {
            *byte |= 1 << (index % 8);
        }
    }
    let mut selection = Writer::default();
    selection.u32(1).u16(SHA256).bytes(&[3]).bytes(&bits);
    selection.0
}

/// Attributes and size of a TPM2B_NV_PUBLIC.
fn nv_public(answer: &[u8]) -> Result<(u32, usize), WireError> {
    let mut reader = Reader::new(Reader::new(answer).sized("nvPublic")?);
    reader.u32("nvIndex")?;
    reader.u16("nameAlg")?;
    let attributes = reader.u32("attributes")?;
    reader.sized("authPolicy")?;
    let len = reader.u16("dataSize")?;
    Ok((attributes, len.into()))
}

/// An ECDSA P-256 key that signs nothing but what the TPM itself made.
fn ak_template() -> Vec<u8> {
    let mut template = Writer::default();
    template.u16(ECC).u16(SHA256).u32(AK_ATTRIBUTES).u16(0);
    // No symmetric algorithm; the scheme; the curve; no KDF; nothing unique.
    template.u16(NULL).u16(ECDSA).u16(SHA256).u16(P256).u16(NULL).u16(0).u16(0);
    template.0
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Appends a TPM2B. What we send is far shorter than its limit.
    fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).bytes(bytes)
    }
}

/// What to do about codes that administrators meet (part 2, 6.6).
fn hint(code: u32) -> &'static str {
    match code {
        0x9a2 | 0x98e => {
            " (a hierarchy or index has a password: clear it, or give the machine a TPM of its own)"
        }
        0x100 => " (it was not started: the kernel's driver does that)",
        NO_SUCH_HANDLE => " (no such index or key)",
        BUSY => " (it stays busy)",
        0x921 => " (it is locked out after wrong passwords: wait, or reset the lockout)",
        0x902 => " (it has no room for a key: another program does not use its resource manager)",
        _ => "",
    }
}

/// TPM_RC_RETRY: the same command may pass a moment later.
const BUSY: u32 = 0x922;
const BUSY_ATTEMPTS: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// TPM_RC_HANDLE of the first handle.
const NO_SUCH_HANDLE: u32 = 0x18b;
const HEADER: usize = 10;
/// More bytes than any answer has (the reference code has 4096).
const MAX_ANSWER: usize = 8192;
/// How many bytes every TPM can read at a time (PC Client Platform TPM Profile, TPM_PT_NV_BUFFER_MAX).
const NV_CHUNK: usize = 512;
const ATTEMPTS: usize = 5;
const TAG_NO_SESSIONS: u16 = 0x8001;
const TAG_SESSIONS: u16 = 0x8002;
/// TPM_RS_PW, for the first handle.
const PASSWORD: &[Handle] = &[Handle(0x4000_0009)];
const NONE: &[Handle] = &[];
const OWNER: Handle = Handle(0x4000_0001);
const ENDORSEMENT: Handle = Handle(0x4000_000b);
/// TPMA_NV_AUTHREAD (part 2, 13.4).
const NV_AUTHREAD: u32 = 1 << 18;
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
const AK_ATTRIBUTES: u32 = 0x0005_0072;

//! The files of `vectors/sealing` and `vectors/session`, for the test that reads them and the example that writes them.
//! Some members have names that are older than the word resumption, and keep them.

use std::convert::Infallible;

use confonnx_attest::UnixTime;
use confonnx_protocol::server::KeyRing;
use rand_core::{TryCryptoRng, TryRng, utils};
use serde::{Deserialize, Serialize};

use crate::support;

/// `case.json`
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Case {
    pub(crate) description: String,
    pub(crate) clause: String,
    #[serde(flatten)]
    pub(crate) input: Input,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(crate) enum Input {
    /// A list of keys, as a client reads it.
    KeyConfigs { list: Hex, expected: String, usable: Vec<Usable> },
    /// A request and its reply, both reproducible.
    Exchange {
        server: Server,
        kem: String,
        aead: String,
        chunked: bool,
        ephemeral: Hex,
        request: Message,
        reply_nonce: Hex,
        reply: Message,
    },
    /// A request, as a server receives it.
    Request { server: Server, chunked: bool, received_before: Vec<Hex>, sealed: Hex, expected: String },
    /// A reply to the request that this client makes, as the client receives it.
    Reply {
        server: Server,
        kem: String,
        aead: String,
        chunked: bool,
        ephemeral: Hex,
        sealed: Hex,
        expected: String,
    },
    /// A resumption and what goes both ways in it, all reproducible.
    #[serde(rename = "session")]
    Resumption {
        server: Server,
        #[serde(rename = "session")]
        resumption: Opening,
        #[serde(rename = "session_secret")]
        resumption_secret: Hex,
        messages: Vec<Resumed>,
    },
    /// A request by the resumption, as a server receives it.
    #[serde(rename = "session-request")]
    ResumptionRequest {
        server: Server,
        #[serde(rename = "session")]
        resumption: Opening,
        received_before: Vec<Hex>,
        sealed: Hex,
        expected: String,
    },
    /// A reply to the resumption's first request, as the client receives it.
    #[serde(rename = "session-reply")]
    ResumptionReply {
        server: Server,
        #[serde(rename = "session")]
        resumption: Opening,
        salt: Hex,
        sealed: Hex,
        expected: String,
    },
}

/// The full request that opens a resumption, and the identifier that the server gives it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Opening {
    pub(crate) kem: String,
    pub(crate) aead: String,
    pub(crate) ephemeral: Hex,
    pub(crate) request: Message,
    pub(crate) id: Hex,
    pub(crate) grant: String,
}

/// A resumed request and its reply.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Resumed {
    pub(crate) counter: u64,
    pub(crate) salt: Hex,
    pub(crate) request: Message,
    pub(crate) reply_nonce: Hex,
    pub(crate) reply: Message,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Server {
    pub(crate) epoch_secret: Hex,
    pub(crate) epoch_number: u64,
    pub(crate) binding: Hex,
    pub(crate) key_configs: Hex,
}

#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Usable {
    pub(crate) key_id: u8,
    pub(crate) kem: String,
    pub(crate) aeads: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Message {
    pub(crate) plaintext: Hex,
    pub(crate) sealed: Hex,
}

impl Server {
    pub(crate) fn ring(&self) -> KeyRing {
        let bytes = |hex: &Hex| hex.0.as_slice().try_into().unwrap();
        let ring = KeyRing::new(support::config(), bytes(&self.binding), NOW).unwrap();
        ring.install(support::epoch(self.epoch_number, bytes(&self.epoch_secret), NOW), NOW).unwrap();
        ring
    }
}

/// The time at which all cases happen.
pub(crate) const NOW: UnixTime = support::START;

/// Bytes a side of a chunked message puts into its first chunk; the rest is final.
pub(crate) const FIRST_CHUNK: usize = 8;

/// Bytes as lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = std::num::ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16);
        (0..digits.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        hex.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Gives these bytes and no more.
pub(crate) struct Fixed(pub(crate) Vec<u8>);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&std::mem::replace(&mut self.0, rest));
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

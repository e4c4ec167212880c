//! What servers ask that join this one's group.

use confonnx_protocol::bhttp::ResponseHead;

use super::{Answer, Call, LetsIn, Row, Runs, Subject};
use crate::{
    group::{CHALLENGE_PATH, JOIN_PATH, JoinRefusal, JoinRequest},
    service::error::{InnerError, WireError},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "peer-challenge",
        method: "POST",
        paths: &[CHALLENGE_PATH],
        lets_in: LetsIn::Peers,
        subject: Subject::Nothing,
        runs: Runs::Long,
        answer: |call| answer(call, JoinRequest::Challenge),
    },
    Row {
        name: "peer-join",
        method: "POST",
        paths: &[JOIN_PATH],
        lets_in: LetsIn::Peers,
        subject: Subject::Nothing,
        runs: Runs::Long,
        answer: |call| answer(call, JoinRequest::Join),
    },
];

impl WireError for JoinRefusal {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::NotJoined => (503, "keys-unavailable"),
            Self::Short | Self::Document(_) => (400, "join-invalid"),
            Self::Challenge => (409, "challenge-unknown"),
            Self::NotGenuine(_) | Self::NotTrusted(_) | Self::Disagree(_) | Self::Serving | Self::Key(_) => {
                (403, "peer-refused")
            }
            Self::Random(_) => (500, "internal"),
        }
    }
}

fn answer(call: &Call<'_>, asked: JoinRequest) -> Result<Answer, InnerError> {
    // Where there is no group, there are no such resources.
    let group = call.service.group.as_ref().ok_or_else(|| InnerError::NotFound { path: call.path.into() })?;
    let answer = group.answer(asked, call.body)?;
    call.reply(ResponseHead::new(200), "application/octet-stream", &[&answer])
}

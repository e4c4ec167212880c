//! What key holder and box say to each other on the control channel.

use super::channel::Message;

/// What the key holder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// With the library and a file for reports: whether a box works here.
    Probe,
    /// With the library, a file for reports, the order, the model and its data: to load it. Memory 0 has no limit.
    Load { order_len: u64, model_len: u64, data_len: u64, memory: u64 },
    /// With a socket and a memory file: where requests come from.
    Lane { index: u64 },
    /// That there are no more lanes; the box gives up what it needed until now.
    Begin,
    /// To stop a request.
    Stop { lane: u64, job: u64 },
}

/// What a box says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The model is loaded; as many bytes of facts are in the report.
    Loaded { len: u64 },
    /// It is not; as many bytes of text say why.
    Refused { len: u64 },
    /// The sandbox holds.
    Held { landlocked: bool },
}

impl Control {
    pub(super) fn message(self) -> Message {
        match self {
            Self::Probe => [1, 0, 0, 0, 0],
            Self::Load { order_len, model_len, data_len, memory } => {
                [2, order_len, model_len, data_len, memory]
            }
            Self::Lane { index } => [3, index, 0, 0, 0],
            Self::Begin => [4, 0, 0, 0, 0],
            Self::Stop { lane, job } => [5, lane, job, 0, 0],
        }
    }

    pub(super) fn of(message: Message) -> Option<Self> {
        match message {
            [1, ..] => Some(Self::Probe),
            [2, order_len, model_len, data_len, memory] => {
                Some(Self::Load { order_len, model_len, data_len, memory })
            }
            [3, index, ..] => Some(Self::Lane { index }),
            [4, ..] => Some(Self::Begin),
            [5, lane, job, ..] => Some(Self::Stop { lane, job }),
            _ => None,
        }
    }
}

impl Said {
    pub(super) fn message(self) -> Message {
        match self {
            Self::Loaded { len } => [1, len, 0, 0, 0],
            Self::Refused { len } => [2, len, 0, 0, 0],
            Self::Held { landlocked } => [3, u64::from(landlocked), 0, 0, 0],
        }
    }

    pub(super) fn of(message: Message) -> Option<Self> {
        match message {
            [1, len, ..] => Some(Self::Loaded { len }),
            [2, len, ..] => Some(Self::Refused { len }),
            [3, landlocked, ..] => Some(Self::Held { landlocked: landlocked != 0 }),
            _ => None,
        }
    }
}

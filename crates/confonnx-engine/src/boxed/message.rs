//! What key holder and box say to each other in a few numbers: on the control channel, and beside the words of a lane.

use super::{channel::Message, exchange::Note};

/// An order of the key holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// With the library and a file for reports: to load the library, in the sandbox, and wait for a model. Memory 0 has no
    /// limit.
    Prepare { memory: u64 },
    /// With the library, a file for reports, the order, the model and its data: to load it, after the library if that was not
    /// done yet.
    Load { order_len: u64, model_len: u64, data_len: u64, memory: u64 },
    /// With a memory file and a bell: where requests come from.
    Lane { index: u64 },
    /// There are no more lanes: the box gives up the system calls that it needed until now, and serves the lanes by as many
    /// threads.
    Begin { threads: u64 },
    /// To stop a request.
    Stop { lane: u64, job: u64 },
}

/// What a box says on the control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The model is loaded; as many bytes of facts are in the report.
    Loaded { len: u64 },
    /// The model is not loaded; as many bytes of text say why.
    Refused { len: u64 },
    /// The sandbox holds.
    Held { landlocked: bool },
}

impl Control {
    pub(super) fn message(self) -> Message {
        match self {
            Self::Prepare { memory } => [1, memory, 0, 0, 0],
            Self::Load { order_len, model_len, data_len, memory } => {
                [2, order_len, model_len, data_len, memory]
            }
            Self::Lane { index } => [3, index, 0, 0, 0],
            Self::Begin { threads } => [4, threads, 0, 0, 0],
            Self::Stop { lane, job } => [5, lane, job, 0, 0],
        }
    }

    pub(super) fn of(message: Message) -> Option<Self> {
        match message {
            [1, memory, ..] => Some(Self::Prepare { memory }),
            [2, order_len, model_len, data_len, memory] => {
                Some(Self::Load { order_len, model_len, data_len, memory })
            }
            [3, index, ..] => Some(Self::Lane { index }),
            [4, threads, ..] => Some(Self::Begin { threads }),
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

/// The numbers that the key holder gives with a request.
pub(super) struct Asked {
    /// How long the request's head is.
    pub(super) header: u64,
    /// Where the request's tensors end.
    pub(super) end: u64,
    /// What is to be done.
    pub(super) kind: Kind,
    /// The core that the run is to be on, or [`ANYWHERE`].
    pub(super) core: u64,
}

/// The numbers that the box gives with an answer.
pub(super) struct Answered {
    /// Where the answer's head is.
    pub(super) at: u64,
    /// How long the answer's head is.
    pub(super) len: u64,
    /// How many requests were batched so far.
    pub(super) batched: u64,
    /// How long the run took.
    pub(super) micros: u64,
    /// How long the answer's tensors are, for whoever has to find a thread to read them.
    pub(super) bytes: u64,
}

/// What a box does with tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The box runs the model.
    Run,
    /// The box runs the model on all cores: there is no other request.
    RunAlone,
    /// To go on with sequences that the model remembers.
    Step,
}

impl Asked {
    pub(super) fn note(self) -> Note {
        let kind = match self.kind {
            Kind::Run => 0,
            Kind::RunAlone => 1,
            Kind::Step => 2,
        };
        [self.header, self.end, kind, self.core, 0]
    }

    pub(super) fn of([header, end, kind, core, _]: Note) -> Option<Self> {
        let kind = match kind {
            0 => Kind::Run,
            1 => Kind::RunAlone,
            2 => Kind::Step,
            _ => return None,
        };
        Some(Self { header, end, kind, core })
    }
}

impl Answered {
    pub(super) fn note(self) -> Note {
        [self.at, self.len, self.batched, self.micros, self.bytes]
    }

    pub(super) fn of([at, len, batched, micros, bytes]: Note) -> Self {
        Self { at, len, batched, micros, bytes }
    }
}

/// No core in particular.
pub(super) const ANYWHERE: u64 = u64::MAX;

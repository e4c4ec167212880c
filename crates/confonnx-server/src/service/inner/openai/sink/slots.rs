//! What waits to be sent where one piece of one size goes out at each instant, whatever there is to say.

use confonnx_generate::openai::Choice;
use confonnx_tensor::Erased;

use super::{SIZE, join};

/// What waits.
pub(super) struct Slots {
    /// Of each answer what is not written yet.
    waiting: Vec<Option<Choice>>,
    /// What is written and not sent: whole events, of which the first bytes may be gone.
    pub(super) bytes: Erased<Vec<u8>>,
    sent: usize,
    /// Whether what comes after all answers is written.
    pub(super) ended: bool,
}

impl Slots {
    pub(super) fn new(answers: usize) -> Self {
        Self { waiting: vec![None; answers], bytes: Erased::default(), sent: 0, ended: false }
    }

    /// What is new of an answer. It is told in one event with what of it waits already.
    pub(super) fn add(&mut self, index: usize, choice: Choice) {
        if let Some(waiting) = self.waiting.get_mut(index) {
            join(waiting.get_or_insert_default(), choice);
        }
    }

    /// What is to be written next.
    pub(super) fn next(&mut self) -> Option<(usize, Choice)> {
        self.waiting.iter_mut().enumerate().find_map(|(index, waiting)| Some((index, waiting.take()?)))
    }

    /// Whether what is written fills a piece.
    pub(super) fn is_full(&self) -> bool {
        self.unsent() >= SIZE
    }

    /// Whether all that is known of answers is written.
    pub(super) fn is_told(&self) -> bool {
        self.waiting.iter().all(Option::is_none)
    }

    /// Whether nothing that is written waits.
    pub(super) fn is_empty(&self) -> bool {
        self.unsent() == 0
    }

    fn unsent(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent)
    }

    /// The next piece: what waits, as much as there is room for, and blank lines and a comment, which who reads events passes
    /// over.
    pub(super) fn piece(&mut self) -> Erased<Vec<u8>> {
        let mut piece = Erased::new(Vec::with_capacity(SIZE));
        piece.append(
            self.bytes.get(self.sent..).and_then(|rest| rest.get(..SIZE.min(rest.len()))).unwrap_or_default(),
        );
        self.sent = self.sent.saturating_add(piece.len());
        if self.is_empty() {
            (self.bytes, self.sent) = (Erased::default(), 0);
        }
        // Only what was sent to its end leaves room.
        match SIZE.saturating_sub(piece.len()) {
            0 => {}
            // Too little for a comment.
            1..=3 => piece.resize(SIZE, b'\n'),
            _ => {
                piece.append(b": ");
                piece.resize(SIZE.saturating_sub(2), b' ');
                piece.append(b"\n\n");
            }
        }
        piece
    }
}

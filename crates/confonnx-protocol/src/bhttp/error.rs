use std::fmt;

use super::{MAX_FIELDS, MAX_HEAD, MAX_INFORMATIONAL};

/// Why a message cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BhttpError {
    /// The message ends early.
    #[error("the binary HTTP message ends within its {part}; was it cut short?")]
    Truncated {
        /// The part of the message that ends early.
        part: Part,
    },
    /// A response where a request should be, or the other way round, or neither.
    #[error("expected a binary HTTP {expected}, found framing indicator {found}")]
    Framing {
        /// `request` or `response`.
        expected: &'static str,
        /// 0 to 3 are known.
        found: u64,
    },
    /// Control data or a field section is over [`MAX_HEAD`].
    #[error("control data and fields are over {MAX_HEAD} bytes")]
    HeadTooLarge,
    /// A section has more than [`MAX_FIELDS`] fields.
    #[error("a section has more than {MAX_FIELDS} fields")]
    TooManyFields,
    /// There are more than [`MAX_INFORMATIONAL`] informational responses.
    #[error("more than {MAX_INFORMATIONAL} informational responses come before the final one")]
    TooManyInformational,
    /// A number is no status code that may stand here.
    #[error("expected a status code from 200 to 599, found {found}")]
    Status {
        /// The number found.
        found: u64,
    },
    /// Method, scheme, authority or path has characters that it may not have.
    #[error("the {part} has characters that HTTP does not allow there")]
    Control {
        /// The section.
        part: Part,
    },
    /// A field name is empty or not a lower-case token.
    #[error("the name of field {index} is not a lower-case token")]
    FieldName {
        /// Counted from 0 in its section.
        index: usize,
    },
    /// A field value has a CR, LF or NUL.
    #[error("the value of field {name:?} has a CR, LF or NUL")]
    FieldValue {
        /// The field's name.
        name: String,
    },
    /// Padding must be zeros.
    #[error("byte {at} comes after the message and is not zero, as padding must be")]
    Padding {
        /// Offset of the first such byte.
        at: usize,
    },
}

/// A part of a binary HTTP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first integer.
    Framing,
    /// A request's method.
    Method,
    /// A request's scheme.
    Scheme,
    /// A request's authority.
    Authority,
    /// A request's path.
    Path,
    /// A response's status.
    Status,
    /// Header fields.
    Header,
    /// The body.
    Content,
    /// Trailer fields.
    Trailer,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Framing => "framing indicator",
            Self::Method => "method",
            Self::Scheme => "scheme",
            Self::Authority => "authority",
            Self::Path => "path",
            Self::Status => "status code",
            Self::Header => "header fields",
            Self::Content => "content",
            Self::Trailer => "trailer fields",
        })
    }
}

impl BhttpError {
    /// The reason in a word or two, as `vectors/` names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Framing { .. } => "framing",
            Self::HeadTooLarge => "head-too-large",
            Self::TooManyFields => "too-many-fields",
            Self::TooManyInformational => "too-many-informational",
            Self::Status { .. } => "status",
            Self::Control { .. } => "control",
            Self::FieldName { .. } => "field-name",
            Self::FieldValue { .. } => "field-value",
            Self::Padding { .. } => "padding",
        }
    }
}

//! The messages of the OpenAI API: chat completions, completions and the list of models.

pub(crate) mod read;
mod request;
mod response;

pub use self::{
    read::RequestError,
    request::{Format, Overrides, Prompt, Request},
    response::{Choice, Kind, Told, Usage, Writer, models},
};

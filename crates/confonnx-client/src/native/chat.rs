//! Chats over sockets.

use std::fmt;

use super::drive::Stream;
use super::{Client, blocking};
use crate::chat::{Chat, ChatAnswer, Reader, failure};
use crate::{ClientError, ModelRef};

impl Client {
    /// Asks a language model; its whole answer.
    ///
    /// ```no_run
    /// # async fn example(client: confonnx_client::Client) -> Result<(), confonnx_client::ClientError> {
    /// use confonnx_client::Chat;
    ///
    /// let answer = client.chat(&Chat::new().user("Who wrote Faust?").parameter("temperature", 0)).await?;
    /// println!("{}", answer.text);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn chat(&self, chat: &Chat) -> Result<ChatAnswer, ClientError> {
        let model = self.language_model(chat).await?;
        let response = self.request(chat.request(&model, false)).await?;
        if response.status() != 200 {
            return Err(failure(response.status(), response.body()));
        }
        ChatAnswer::whole(response.body())
    }

    /// As [`chat`](Self::chat), with the answer as it comes.
    pub async fn chat_stream(&self, chat: &Chat) -> Result<ChatStream<'_>, ClientError> {
        let model = self.language_model(chat).await?;
        let mut stream = self.stream(chat.request(&model, true)).await?;
        if stream.status() == 200 {
            return Ok(ChatStream { stream, reader: Reader::default() });
        }
        let mut body = Vec::new();
        while let Some(piece) = stream.chunk().await? {
            body.extend(piece);
        }
        Err(failure(stream.status(), &body))
    }

    /// The model that `chat` goes to: the one that it names, or the server's only one, by the claims.
    async fn language_model(&self, chat: &Chat) -> Result<String, ClientError> {
        if let Some(name) = &chat.model {
            return Ok(name.clone());
        }
        let proof = self.attest().await?;
        Ok(self.policy().model(proof.claims(), ModelRef::default().name, None)?.name)
    }
}

/// An answer as it comes.
pub struct ChatStream<'c> {
    stream: Stream<'c>,
    reader: Reader,
}

impl ChatStream<'_> {
    /// What is said next: a token, or some that came together. `None` once the answer is whole.
    ///
    /// # Errors
    /// [`ClientError`]: what was said before is not the whole answer.
    pub async fn token(&mut self) -> Result<Option<String>, ClientError> {
        while let Some(bytes) = self.stream.chunk().await? {
            let text = self.reader.push(&bytes)?;
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
        self.reader.finish()?;
        Ok(None)
    }

    /// What was said so far, and how it ended if it has.
    pub fn answer(&self) -> &ChatAnswer {
        &self.reader.answer
    }
}

impl fmt::Debug for ChatStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatStream({:?})", self.reader.answer)
    }
}

impl blocking::Client {
    /// See [`crate::Client::chat`].
    pub fn chat(&self, chat: &Chat) -> Result<ChatAnswer, ClientError> {
        self.runtime.block_on(self.inner.chat(chat))
    }

    /// See [`crate::Client::chat_stream`]: each item is what is said next; the last one before the end may be an error, and
    /// then the answer is not whole.
    pub fn chat_stream(&self, chat: &Chat) -> Result<ChatTokens<'_>, ClientError> {
        let stream = self.runtime.block_on(self.inner.chat_stream(chat))?;
        Ok(ChatTokens { client: self, stream, over: false })
    }
}

/// An answer as it comes, without `async`.
#[derive(Debug)]
pub struct ChatTokens<'c> {
    client: &'c blocking::Client,
    stream: ChatStream<'c>,
    over: bool,
}

impl ChatTokens<'_> {
    /// What was said so far, and how it ended if it has.
    pub fn answer(&self) -> &ChatAnswer {
        self.stream.answer()
    }
}

impl Iterator for ChatTokens<'_> {
    type Item = Result<String, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.client.runtime.block_on(self.stream.token()).transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

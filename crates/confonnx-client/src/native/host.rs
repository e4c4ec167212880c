//! What a conversation stands on here: the connections, and the process whose they are.

use std::sync::{Arc, Mutex, PoisonError};

use super::transport::Transport;
use crate::ClientError;
use crate::base::Base;
use crate::conversation::Conversation;

/// The conversation, and the connections that it goes over.
pub(super) struct Native {
    pub(super) conversation: Arc<Conversation>,
    connections: Mutex<Connections>,
}

struct Connections {
    transport: Arc<Transport>,
    /// The server that the connections are for.
    url: String,
    /// The process whose connections they are: one that was forked must not use them.
    process: u32,
}

impl Native {
    pub(super) fn new(conversation: Arc<Conversation>) -> Result<Self, ClientError> {
        let transport = transport(&conversation)?;
        let connections = Connections { transport, url: conversation.url(), process: std::process::id() };
        Ok(Self { conversation, connections: Mutex::new(connections) })
    }

    /// Looks, before an exchange, whether this process is a copy of the one that began the conversation.
    pub(super) fn look_for_fork(&self) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if connections.process != process {
            // This is a forked copy: connections and what is resumed are its parent's, whom closing them would disturb.
            let fresh = Arc::new(connections.transport.afresh());
            std::mem::forget(std::mem::replace(&mut connections.transport, fresh));
            connections.process = process;
            self.conversation.forked();
        }
    }

    /// The connections to the server's URL of now.
    pub(super) fn transport(&self) -> Result<Arc<Transport>, ClientError> {
        // Nothing panics while holding the lock, and every field is valid at any time.
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let url = self.conversation.url();
        if connections.url != url {
            connections.transport = transport(&self.conversation)?;
            connections.url = url;
        }
        Ok(Arc::clone(&connections.transport))
    }
}

fn transport(conversation: &Conversation) -> Result<Arc<Transport>, ClientError> {
    let options = conversation.options();
    let relay = options.relay.as_deref().map(Base::parse).transpose()?;
    Ok(Arc::new(Transport::new(&Base::parse(&conversation.url())?, relay.as_ref(), options)?))
}

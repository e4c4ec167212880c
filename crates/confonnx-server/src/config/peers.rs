//! Settings of a group of servers with one secret.

use super::{Bootstrap, ConfigError, Settings};
use crate::keys::peer::PeerConfig;

/// The group of `--key-provider peer`.
pub(super) fn config(settings: &Settings) -> Result<PeerConfig, ConfigError> {
    let missing = ConfigError::Missing { name: "peers", variable: "CONFONNX_PEERS" };
    let peers = settings.peers.clone().ok_or(missing)?;
    let bootstrap = match settings.peer_bootstrap.unwrap_or(Bootstrap::Never) {
        Bootstrap::Never => false,
        Bootstrap::Always => true,
        Bootstrap::Ordinal => rustix::system::uname().nodename().to_bytes().ends_with(b"-0"),
    };
    Ok(PeerConfig { peers, policy: settings.peer_policy.clone(), bootstrap })
}

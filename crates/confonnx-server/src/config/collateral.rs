//! Where what the TEE's vendor says of it comes from.

use std::path::PathBuf;

/// Where collateral comes from and is kept.
#[derive(Clone, Debug, Default)]
pub struct CollateralConfig {
    /// Services to ask instead of the vendors' own.
    pub bases: Bases,
    /// Folder that keeps answers over a restart.
    pub cache: Option<PathBuf>,
}

/// URLs of services to ask instead of the vendors' own.
#[derive(Clone, Debug, Default)]
pub struct Bases {
    /// Instead of AMD's Key Distribution Service.
    pub amd: Option<String>,
    /// Instead of Intel's Provisioning Certification Service: a caching one (PCCS).
    pub intel: Option<String>,
}

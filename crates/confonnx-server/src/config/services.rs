//! Settings of services that release secrets.

use std::{path::PathBuf, str::FromStr};

use confonnx_protocol::key_service::{key_vault::KeyName, trustee::Resource};

use super::{Bases, ConfigError, Settings, base_url};

/// A secret that a setting names.
#[derive(Clone, Debug)]
pub enum SecretConfig {
    /// A resource of a Key Broker Service.
    Kbs(KbsConfig, Resource),
    /// A key of Azure Key Vault.
    Akv(Box<AkvConfig>, KeyName),
}

/// Who is asked, and who is believed to be them.
#[derive(Clone, Debug)]
pub struct Service {
    /// `https://…`, without a `/` at the end; `http://…` where nothing is confidential anyway.
    pub url: String,
    /// Certificates of authorities in PEM, to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// The Key Broker Service to ask.
pub type KbsConfig = Service;

/// The vault to ask, and what that takes.
#[derive(Clone, Debug)]
pub struct AkvConfig {
    /// The vault or managed HSM.
    pub vault: Service,
    /// Base URL of the attestation service; the vault's authorities vouch for it as well.
    pub attestation_url: String,
    /// File with an access token for the vault; `None` asks the machine's managed identity.
    pub token_file: Option<PathBuf>,
    /// The instance metadata service.
    pub identity_url: String,
    /// Where what the TEE's vendor says of it is fetched.
    pub collateral: Bases,
}

/// The secret that `--model-key-source` names.
pub(super) fn model_key(settings: &Settings, bases: &Bases) -> Result<Option<SecretConfig>, ConfigError> {
    let Some(source) = &settings.model_key_source else { return Ok(None) };
    if let Some(path) = &settings.model_owner_key_file {
        let expected = "none beside model-key-source: a service signs nothing for the model's owner";
        return Err(ConfigError::Range {
            name: "model-owner-key-file",
            found: path.display().to_string(),
            expected,
        });
    }
    let secret = match source.split_once(':') {
        Some(("kbs", name)) => SecretConfig::Kbs(kbs_service(settings)?, name_of("model-key-source", name)?),
        Some(("akv", name)) => {
            SecretConfig::Akv(akv_service(settings, bases)?.into(), name_of("model-key-source", name)?)
        }
        _ => {
            let expected = "kbs:REPOSITORY/TYPE/TAG or akv:NAME[/VERSION]";
            return Err(ConfigError::Range {
                name: "model-key-source",
                found: format!("{source:?}"),
                expected,
            });
        }
    };
    Ok(Some(secret))
}

/// The secret of `--key-provider kbs`.
pub(super) fn kbs(settings: &Settings) -> Result<SecretConfig, ConfigError> {
    let name = given("kbs-resource", "CONFONNX_KBS_RESOURCE", settings.kbs_resource.as_deref())?;
    Ok(SecretConfig::Kbs(kbs_service(settings)?, name_of("kbs-resource", name)?))
}

/// The secret of `--key-provider akv`.
pub(super) fn akv(settings: &Settings, bases: &Bases) -> Result<SecretConfig, ConfigError> {
    let name = given("akv-key", "CONFONNX_AKV_KEY", settings.akv_key.as_deref())?;
    Ok(SecretConfig::Akv(akv_service(settings, bases)?.into(), name_of("akv-key", name)?))
}

fn kbs_service(settings: &Settings) -> Result<KbsConfig, ConfigError> {
    let url = given("kbs-url", "CONFONNX_KBS_URL", settings.kbs_url.as_deref())?;
    service(settings, "kbs-url", url, settings.kbs_ca_file.clone())
}

fn akv_service(settings: &Settings, bases: &Bases) -> Result<AkvConfig, ConfigError> {
    let url = given("akv-url", "CONFONNX_AKV_URL", settings.akv_url.as_deref())?;
    let attestation = given(
        "akv-attestation-url",
        "CONFONNX_AKV_ATTESTATION_URL",
        settings.akv_attestation_url.as_deref(),
    )?;
    let attestation = service(settings, "akv-attestation-url", attestation, None)?;
    let identity = base_url("akv-identity-url", settings.akv_identity_url.clone())?;
    Ok(AkvConfig {
        vault: service(settings, "akv-url", url, settings.akv_ca_file.clone())?,
        attestation_url: attestation.url,
        token_file: settings.akv_token_file.clone(),
        identity_url: without_slash(identity.as_deref().unwrap_or(INSTANCE_METADATA)),
        collateral: bases.clone(),
    })
}

/// Whoever answers in a service's name knows the secret: so its name has to be certified, unless nothing is
/// confidential anyway.
fn service(
    settings: &Settings,
    name: &'static str,
    url: &str,
    ca_file: Option<PathBuf>,
) -> Result<Service, ConfigError> {
    let insecure = settings.debug.unwrap_or(false) || settings.simulation.unwrap_or(false);
    let url = base_url(name, Some(url.into()))?.unwrap_or_default();
    if !insecure && !url.starts_with("https://") {
        let expected = "a URL of https: whoever can answer in the service's name can choose the secret";
        return Err(ConfigError::Range { name, found: format!("{url:?}"), expected });
    }
    Ok(Service { url: without_slash(&url), ca_file })
}

fn without_slash(url: &str) -> String {
    url.trim_end_matches('/').into()
}

fn given<'a>(
    name: &'static str,
    variable: &'static str,
    value: Option<&'a str>,
) -> Result<&'a str, ConfigError> {
    value.ok_or(ConfigError::Missing { name, variable })
}

fn name_of<T: Named>(name: &'static str, text: &str) -> Result<T, ConfigError> {
    text.parse().map_err(|_| ConfigError::Range { name, found: format!("{text:?}"), expected: T::EXPECTED })
}

trait Named: FromStr {
    const EXPECTED: &'static str;
}

impl Named for Resource {
    const EXPECTED: &'static str =
        "REPOSITORY/TYPE/TAG, each of letters, digits, `_`, `-` and, not first, `.`";
}

impl Named for KeyName {
    const EXPECTED: &'static str = "NAME or NAME/VERSION, each of letters, digits and `-`";
}

/// The metadata service, at the same address in every virtual machine of Azure.
const INSTANCE_METADATA: &str = "http://169.254.169.254";

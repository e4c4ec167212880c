//! Registers of an AWS Nitro enclave: measured of its image, or as its build computed them, passed on.

mod eif;

use serde::Deserialize;
use serde_json::Map;
use sha2::{Digest as _, Sha384};

use crate::image::MeasureError;
use crate::{EnclaveInfo, Hex, Tee};

/// The enclave's info, from its image (an EIF), or from what `nitro-cli build-enclave` (or `describe-eif`) prints, of which
/// lines before the JSON object are skipped.
pub fn enclave_info(file: &[u8]) -> Result<EnclaveInfo, MeasureError> {
    if file.starts_with(eif::MAGIC) {
        let eif::Registers { pcr0, pcr1, pcr2, pcr8 } = eif::registers(file)?;
        return Ok(info_of(Measurements { pcr0, pcr1, pcr2, pcr8 }));
    }
    let output = String::from_utf8_lossy(file);
    let malformed = |found: String| MeasureError::Malformed {
        file: "output of nitro-cli",
        what: "measurements",
        expected: "an enclave image (EIF), or a JSON object with `Measurements`: `PCR0`, `PCR1`, `PCR2`"
            .into(),
        found,
    };
    let json = output.find('{').and_then(|start| output.get(start..)).unwrap_or_default();
    let built: Built = crate::json::from_str(json).map_err(|err| malformed(err.to_string()))?;
    if built.measurements.pcr0.0 == [0; 48] {
        return Err(malformed("PCR0 of zeros, which is what debug mode reports".into()));
    }
    Ok(info_of(built.measurements))
}

fn info_of(measurements: Measurements) -> EnclaveInfo {
    let Measurements { pcr0, pcr1, pcr2, pcr8 } = measurements;
    let digest = Sha384::new().chain_update(pcr0.0).chain_update(pcr1.0).chain_update(pcr2.0).finalize();
    let registers = [("pcr0", Some(pcr0)), ("pcr1", Some(pcr1)), ("pcr2", Some(pcr2)), ("pcr8", pcr8)];
    let details: Map<_, _> = registers
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_string().into())))
        .collect();
    EnclaveInfo {
        tee: Some(Tee::Nitro),
        enclave_hash: Hex::<48>(digest.into()).into(),
        mrenclave: None,
        details,
    }
}

#[derive(Deserialize)]
struct Built {
    #[serde(rename = "Measurements")]
    measurements: Measurements,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Measurements {
    pcr0: Hex<48>,
    pcr1: Hex<48>,
    pcr2: Hex<48>,
    /// PCR8: the certificate that signed the image.
    pcr8: Option<Hex<48>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(pcr0: &str) -> String {
        let [one, two] = ["01", "02"].map(|byte| byte.repeat(48));
        format!(
            "Enclave Image successfully created.\n{{\"Measurements\": {{\"HashAlgorithm\": \"Sha384 {{ ... }}\", \
             \"PCR0\": \"{}\", \"PCR1\": \"{one}\", \"PCR2\": \"{two}\"}}}}",
            pcr0.repeat(48)
        )
    }

    #[test]
    fn the_enclave_hash_is_over_three_registers() {
        let info = enclave_info(output("0a").as_bytes()).unwrap();
        let expected = Sha384::digest([[0x0a; 48], [1; 48], [2; 48]].concat());
        assert_eq!(info.enclave_hash.as_bytes(), expected.as_slice());
        assert_eq!(info.details.keys().collect::<Vec<_>>(), ["pcr0", "pcr1", "pcr2"]);
    }

    #[test]
    fn other_output_is_refused() {
        let error = |text: &str| enclave_info(text.as_bytes()).unwrap_err().to_string();
        assert!(error("no").contains("or a JSON object with `Measurements`"));
        assert!(error("{\"Measurements\": {}}").contains("missing field `PCR0`"));
        assert!(error(&output("00")).contains("debug mode"));
    }
}

//! Whether a decoder can go on with what an encoder reads.

use confonnx_tensor::DataType;

use crate::info::{Dim, ModelInfo, ValueInfo};

/// Why two models are not an encoder and its decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncoderError {
    /// The decoder reads nothing of an encoder's.
    #[error(
        "the model is not the decoder of an encoder: expected the inputs input_ids, encoder_hidden_states, past_key_values.… and, \
         where it keeps what it read of the encoder, use_cache_branch (decoder_model_merged.onnx of Hugging Face optimum and \
         transformers.js); found {found}"
    )]
    NotADecoder {
        /// The inputs that it has.
        found: String,
    },
    /// The encoder is more than one file.
    #[error("the encoder keeps data in other files ({}); expected one file: save it with its data inside", locations.join(", "))]
    External {
        /// The files that it names.
        locations: Vec<String>,
    },
    /// The encoder is asked in another way.
    #[error(
        "the model is not an encoder of text: expected the inputs input_ids and attention_mask, if any, of INT64 with two axes, and \
         one output, last_hidden_state, of FP32 or FP16 with three; found {found}"
    )]
    NotAnEncoder {
        /// The inputs and outputs that it has.
        found: String,
    },
    /// One gives what the other does not take.
    #[error("the encoder gives {found}, but the decoder takes {expected}; take both from one export")]
    Differ {
        /// What the decoder takes.
        expected: String,
        /// What the encoder gives.
        found: String,
    },
}

impl ModelInfo {
    /// Whether the model goes on with what an encoder has read.
    pub fn needs_encoder(&self) -> bool {
        self.inputs.iter().any(|input| input.name == HIDDEN_IN)
    }

    /// Checks that this decoder can go on with what `encoder` reads.
    ///
    /// # Errors
    /// [`EncoderError`]
    pub fn check_encoder(&self, encoder: &Self) -> Result<(), EncoderError> {
        let named = |name: &str| self.inputs.iter().find(|input| input.name == name);
        let takes = named(HIDDEN_IN).filter(|_| named("input_ids").is_some());
        let takes =
            takes.filter(|_| self.inputs.iter().any(|input| input.name.starts_with("past_key_values.")));
        let crossed = self
            .inputs
            .iter()
            .any(|input| input.name.starts_with("past_key_values.") && input.name.contains(".encoder."));
        let takes = takes.filter(|_| !crossed || named("use_cache_branch").is_some());
        let takes = takes.ok_or_else(|| EncoderError::NotADecoder { found: told(&self.inputs) })?;
        if !encoder.external_data.is_empty() {
            return Err(EncoderError::External { locations: encoder.external_data.clone() });
        }
        let rank = |value: &ValueInfo, rank| value.shape.as_ref().is_none_or(|shape| shape.len() == rank);
        let is_input = |input: &ValueInfo| {
            ["input_ids", "attention_mask"].contains(&input.name.as_str())
                && input.dtype == DataType::Int64
                && rank(input, 2)
        };
        let fits = encoder.inputs.iter().all(is_input)
            && encoder.inputs.iter().any(|input| input.name == "input_ids");
        let gives = match encoder.outputs.as_slice() {
            [only] if fits && only.name == HIDDEN_OUT && rank(only, 3) => Some(only),
            _ => None,
        };
        let gives = gives.filter(|gives| matches!(gives.dtype, DataType::Fp32 | DataType::Fp16));
        let gives = gives.ok_or_else(|| EncoderError::NotAnEncoder {
            found: format!("{} in, {} out", told(&encoder.inputs), told(&encoder.outputs)),
        })?;
        let size = |value: &ValueInfo| match value.shape.as_ref().and_then(|shape| shape.get(2)) {
            Some(Dim::Fixed(size)) => Some(*size),
            _ => None,
        };
        let same = size(takes).zip(size(gives)).is_none_or(|(one, other)| one == other);
        if takes.dtype != gives.dtype || !rank(takes, 3) || !same {
            let value = |value: &ValueInfo| told(std::slice::from_ref(value));
            return Err(EncoderError::Differ { expected: value(takes), found: value(gives) });
        }
        Ok(())
    }
}

/// Names, types and shapes.
fn told(values: &[ValueInfo]) -> String {
    let one = |value: &ValueInfo| {
        let dims = value.shape.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("{} {} [{dims}]", value.name, value.dtype)
    };
    let most = values.iter().take(MOST_TOLD).map(one).collect::<Vec<_>>().join(", ");
    if values.len() > MOST_TOLD { format!("{most}, …") } else { most }
}

const HIDDEN_IN: &str = "encoder_hidden_states";
const HIDDEN_OUT: &str = "last_hidden_state";
/// Inputs and outputs that an error names at most.
const MOST_TOLD: usize = 8;

//! Models that go on with a text token by token, and remember what they read: the keys and values of attention.
//!
//! They are known by their inputs and outputs, as Hugging Face optimum, transformers.js and onnxruntime-genai export them:
//! `input_ids`, `past_key_values.N.key` and `.value`, `present.N.key` and `.value`, `logits`, and what else of
//! `attention_mask`, `position_ids`, `num_logits_to_keep` and `use_cache_branch` they declare. What a sequence has made the
//! model remember stays in the process that runs it; it is erased when the sequence is closed.
//!
//! A decoder may go on with what an encoder has read instead, once for each sequence: it then has the inputs
//! `encoder_hidden_states` and `encoder_attention_mask`, too, and keeps keys and values of that
//! (`past_key_values.N.encoder.key`) beside those of its own answer (`past_key_values.N.decoder.key`).

mod cache;
mod encoder;
mod memory;
mod run;
mod step;
mod trial;
mod values;

use confonnx_tensor::{DataType, Erased};

pub(crate) use self::{encoder::Encoder, memory::Memories, step::Order};
use crate::port::TensorInfo;

/// Tokens of one sequence that a model is to read next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// The sequence.
    pub sequence: u64,
    /// How many tokens of it the model remembers; with none it is a new one.
    pub past: usize,
    /// The tokens.
    pub tokens: Erased<Vec<i64>>,
    /// What the encoder is to read before the first of them, if the model has one; later nothing.
    pub source: Erased<Vec<i64>>,
    /// Whether the logits of the next token are wanted.
    pub wanted: bool,
}

/// What is remembered of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) past: String,
    pub(crate) present: String,
    pub(crate) dtype: DataType,
    pub(crate) heads: usize,
    pub(crate) size: usize,
}

/// How a decoder is given what an encoder has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) layers: Vec<Remembered>,
    pub(crate) mask: bool,
    /// Bytes of what the encoder says of a token; none known where the graph does not say.
    bytes: usize,
}

/// How a model that goes on with a text is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// What is remembered of the text itself.
    pub(crate) layers: Vec<Remembered>,
    /// What is given of another text, if the model goes on with what an encoder has read of one.
    pub(crate) source: Option<Source>,
    pub(crate) mask: bool,
    pub(crate) positions: bool,
    pub(crate) keep: bool,
    pub(crate) branch: bool,
    vocabulary: usize,
}

impl Decoder {
    /// How the model with these inputs and outputs is asked, if it is such a one, for which an `encoder` reads or none does.
    pub(crate) fn of(inputs: &[TensorInfo], outputs: &[TensorInfo], encoder: bool) -> Option<Self> {
        let (mut layers, mut crossed, mut hidden, mut ids) = (Vec::new(), Vec::new(), None, false);
        let [mut mask, mut positions, mut keep, mut branch, mut other_mask] = [false; 5];
        for input in inputs {
            let is = |dtype, rank| input.dtype == dtype && input.shape.len() == rank;
            match input.name.as_str() {
                "input_ids" if is(DataType::Int64, 2) => ids = true,
                "attention_mask" if is(DataType::Int64, 2) => mask = true,
                "position_ids" if is(DataType::Int64, 2) => positions = true,
                "num_logits_to_keep" if input.dtype == DataType::Int64 && input.shape.len() <= 1 => {
                    keep = true
                }
                "use_cache_branch" if is(DataType::Bool, 1) => branch = true,
                "encoder_attention_mask" if is(DataType::Int64, 2) => other_mask = true,
                "encoder_hidden_states" if input.shape.len() == 3 => hidden = Some(bytes(input)?),
                past => {
                    let present = format!("present{}", past.strip_prefix("past_key_values")?);
                    let output = outputs.iter().find(|output| output.name == present)?;
                    let [_, heads, _, size] = *input.shape.as_slice() else { return None };
                    if output.dtype != input.dtype || !matches!(input.dtype, DataType::Fp32 | DataType::Fp16)
                    {
                        return None;
                    }
                    let layers = if past.contains(".encoder.") { &mut crossed } else { &mut layers };
                    layers.push(Remembered {
                        past: past.to_owned(),
                        present,
                        dtype: input.dtype,
                        heads: usize::try_from(heads).ok()?,
                        size: usize::try_from(size).ok()?,
                    });
                }
            }
        }
        let logits = outputs.iter().find(|output| output.name == LOGITS && output.dtype == DataType::Fp32)?;
        let vocabulary = logits.shape.get(2).and_then(|size| usize::try_from(*size).ok())?;
        let all = outputs.len() == layers.len().saturating_add(crossed.len()).saturating_add(1);
        // Only by its branch for the first step does a decoder make keys and values of what the encoder has read.
        let source = match hidden {
            Some(bytes) if branch || crossed.is_empty() => {
                Some(Source { layers: crossed, mask: other_mask, bytes })
            }
            None if crossed.is_empty() && !other_mask => None,
            _ => return None,
        };
        let whole = ids && all && !layers.is_empty() && source.is_some() == encoder;
        whole.then_some(Self { layers, source, mask, positions, keep, branch, vocabulary })
    }

    /// How many different tokens there are.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Whether an encoder reads what the model answers to.
    pub fn has_encoder(&self) -> bool {
        self.source.is_some()
    }

    /// Bytes that are remembered for a token at most, be it one that an encoder reads or one of the answer.
    pub fn bytes_per_token(&self) -> usize {
        let of = |layer: &Remembered| {
            let element = if layer.dtype == DataType::Fp16 { 2 } else { 4_usize };
            layer.heads.saturating_mul(layer.size).saturating_mul(element)
        };
        let all = |layers: &[Remembered]| layers.iter().map(of).fold(0, usize::saturating_add);
        let source =
            self.source.as_ref().map_or(0, |source| all(&source.layers).saturating_add(source.bytes));
        all(&self.layers).max(source)
    }
}

/// Bytes of a vector of the input, if its elements can be those of an encoder's output.
fn bytes(input: &TensorInfo) -> Option<usize> {
    let element = match input.dtype {
        DataType::Fp32 => 4,
        DataType::Fp16 => 2_usize,
        _ => return None,
    };
    let size = input.shape.last().and_then(|size| usize::try_from(*size).ok()).unwrap_or(0);
    Some(size.saturating_mul(element))
}

/// Whether a model with inputs of these names goes on with a text: it then needs one session alone.
pub fn names_a_decoder<'n>(mut inputs: impl Iterator<Item = &'n str>) -> bool {
    inputs.any(|name| name.starts_with("past_key_values."))
}

const LOGITS: &str = "logits";

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, dtype: DataType, shape: &[i64]) -> TensorInfo {
        TensorInfo { name: name.into(), dtype, shape: shape.into() }
    }

    fn exported() -> (Vec<TensorInfo>, Vec<TensorInfo>) {
        let memory = |name: &str| info(name, DataType::Fp32, &[-1, 3, -1, 64]);
        let inputs = vec![
            info("input_ids", DataType::Int64, &[-1, -1]),
            info("attention_mask", DataType::Int64, &[-1, -1]),
            memory("past_key_values.0.key"),
            memory("past_key_values.0.value"),
        ];
        let outputs = vec![
            info("logits", DataType::Fp32, &[-1, -1, 100]),
            memory("present.0.key"),
            memory("present.0.value"),
        ];
        (inputs, outputs)
    }

    #[test]
    fn decoders_are_known_by_their_names() {
        let (mut inputs, outputs) = exported();
        let decoder = Decoder::of(&inputs, &outputs, false).unwrap();
        assert_eq!((decoder.vocabulary(), decoder.bytes_per_token()), (100, 2 * 3 * 64 * 4));
        assert_eq!(
            (decoder.mask, decoder.positions, decoder.keep, decoder.branch),
            (true, false, false, false)
        );
        inputs.extend([
            info("position_ids", DataType::Int64, &[-1, -1]),
            info("num_logits_to_keep", DataType::Int64, &[]),
            info("use_cache_branch", DataType::Bool, &[1]),
        ]);
        let decoder = Decoder::of(&inputs, &outputs, false).unwrap();
        assert_eq!((decoder.mask, decoder.positions, decoder.keep, decoder.branch), (true, true, true, true));
        assert!(names_a_decoder(inputs.iter().map(|input| input.name.as_str())));
    }

    #[test]
    fn a_decoder_of_an_encoder_is_known_by_what_it_is_given_of_it() {
        let (mut inputs, mut outputs) = exported();
        for kind in ["key", "value"] {
            let memory = |name: String| info(&name, DataType::Fp32, &[-1, 5, -1, 64]);
            inputs.push(memory(format!("past_key_values.0.encoder.{kind}")));
            outputs.push(memory(format!("present.0.encoder.{kind}")));
        }
        let branch = info("use_cache_branch", DataType::Bool, &[1]);
        let mask = info("encoder_attention_mask", DataType::Int64, &[-1, -1]);
        let hidden = info("encoder_hidden_states", DataType::Fp32, &[-1, -1, 8]);
        let with = |more: &[&TensorInfo]| {
            let more = more.iter().map(|info| (*info).clone());
            Decoder::of(&inputs.iter().cloned().chain(more).collect::<Vec<_>>(), &outputs, true)
        };
        let decoder = with(&[&branch, &mask, &hidden]).unwrap();
        assert!(decoder.has_encoder());
        let source = decoder.source.as_ref().unwrap();
        assert_eq!((decoder.layers.len(), source.layers.len(), source.mask), (2, 2, true));
        assert_eq!(
            decoder.bytes_per_token(),
            (2 * 5 * 64 + 8) * 4,
            "what it reads takes more than what it says"
        );
        assert!(!with(&[&branch, &hidden]).unwrap().source.unwrap().mask);
        assert_eq!(with(&[&mask, &hidden]), None, "without a branch for the first step");
        assert_eq!(with(&[&branch, &mask]), None, "with nothing that the encoder says");
        let (inputs, outputs) = exported();
        assert!(!Decoder::of(&inputs, &outputs, false).unwrap().has_encoder());
        assert_eq!(Decoder::of(&[inputs, vec![mask]].concat(), &outputs, false), None);
    }

    #[test]
    fn what_needs_more_than_that_is_none() {
        let (inputs, outputs) = exported();
        let with = |input: TensorInfo| [inputs.clone(), vec![input]].concat();
        assert_eq!(
            Decoder::of(&with(info("encoder_hidden_states", DataType::Fp32, &[-1, -1, 8])), &outputs, false),
            None
        );
        assert_eq!(
            Decoder::of(
                &with(info("past_key_values.1.key", DataType::Fp32, &[-1, 3, -1, 64])),
                &outputs,
                false
            ),
            None
        );
        assert_eq!(Decoder::of(&inputs[1..], &outputs, false), None);
        assert_eq!(Decoder::of(&inputs[..2], &outputs[..1], false), None);
        assert_eq!(Decoder::of(&inputs[..3], &outputs, false), None);
        let mut symbolic = inputs.clone();
        symbolic[2].shape[1] = -1;
        assert_eq!(Decoder::of(&symbolic, &outputs, false), None);
        assert!(!names_a_decoder(["input_ids", "attention_mask"].into_iter()));
    }
}

//! Vectors of texts by a sentence encoder: which tensors the model takes, in which runs, and what is made of those it gives.

use std::{cmp::Reverse, collections::VecDeque, sync::Arc};

use confonnx_engine::{InferError, LoadedModel, TensorInfo};
use confonnx_generate::{
    embed::{Encoder, Files, Hidden, finished, pooled},
    text::FilesError,
};
use confonnx_model::ModelInfo;
use confonnx_tensor::{DataType, Erased, Shape, Tensor};

/// A sentence encoder.
pub struct Embedder {
    encoder: Encoder,
    inputs: Vec<(Column, TensorInfo)>,
    output: Output,
    /// Rows of a run and tokens of a row, where the model has it one way only.
    rows: Option<usize>,
    width: Option<usize>,
}

/// What an input says of each token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    /// The token's number.
    Id,
    /// Whether it is text.
    Mask,
    /// The text that the token is of.
    Type,
    /// The token's place.
    Position,
}

/// The output that vectors are made of.
struct Output {
    name: String,
    /// Whether it has a vector for each token; else, one for each row.
    each_token: bool,
    size: usize,
}

/// The runs that make the vectors of one request.
pub struct Series {
    embedder: Arc<Embedder>,
    dimensions: Option<usize>,
    texts: Vec<Erased<Vec<u32>>>,
    /// The runs, each with the texts that go into it.
    runs: VecDeque<Vec<usize>>,
    vectors: Vec<Erased<Vec<f32>>>,
}

/// Tensors with their names.
pub type Tensors = Vec<(String, Tensor<'static>)>;

impl Embedder {
    /// The embedder of `model`, whose `info` this is; none if it is no sentence encoder, or has no tokenizer in it.
    ///
    /// # Errors
    /// [`FilesError`] when the files in it do not say how its vectors are made.
    pub fn of(model: &LoadedModel, info: &ModelInfo) -> Result<Option<Self>, FilesError> {
        let file = |name: &str| info.text.get(name).map(String::as_str);
        let (None, Some(tokenizer)) = (model.decoder(), file("tokenizer.json")) else { return Ok(None) };
        let pooling = file("1_Pooling/config.json");
        let Some(output) = Output::of(model.outputs(), pooling.is_some()) else { return Ok(None) };
        let Some(inputs) = columns(model.inputs()) else { return Ok(None) };
        let encoder = Encoder::new(&Files {
            tokenizer,
            tokenizer_config: file("tokenizer_config.json"),
            config: file("config.json"),
            modules: file("modules.json"),
            pooling,
            sentence_bert: file("sentence_bert_config.json"),
            sentence_transformers: file("config_sentence_transformers.json"),
        })?;
        let fixed = |axis: usize| {
            let of =
                |(_, info): &(Column, TensorInfo)| info.shape.get(axis).copied().filter(|size| *size > 0);
            inputs.iter().find_map(of).and_then(|size| usize::try_from(size).ok())
        };
        let (rows, width) = (fixed(0), fixed(1));
        Ok(Some(Self { encoder, inputs, output, rows, width }))
    }

    /// How texts become tokens.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The most tokens of a text.
    pub fn most(&self) -> usize {
        let said = self.encoder.most().unwrap_or(MOST_TOKENS);
        self.width.map_or(said, |width| said.min(width))
    }

    /// Numbers of a vector.
    pub fn size(&self) -> usize {
        self.output.size
    }

    /// The runs for `texts`: those of like length together, so that little is padded.
    pub fn series(self: &Arc<Self>, texts: Vec<Erased<Vec<u32>>>, dimensions: Option<usize>) -> Series {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        let length = |place: &usize| texts.get(*place).map_or(0, |text| text.len());
        order.sort_by_key(|place| Reverse(length(place)));
        let room = RUN.checked_div(self.output.size).unwrap_or(1).clamp(1, MOST_TOKENS);
        let mut runs: VecDeque<Vec<usize>> = VecDeque::new();
        let mut longest = 0;
        for place in order {
            let fits = |run: &&mut Vec<usize>| {
                let rows = run.len().saturating_add(1);
                self.rows.map_or(rows.saturating_mul(longest) <= room, |most| rows <= most)
            };
            match runs.back_mut().filter(fits) {
                Some(run) => run.push(place),
                None => {
                    longest = self.width.unwrap_or_else(|| length(&place));
                    runs.push_back(vec![place]);
                }
            }
        }
        let vectors = texts.iter().map(|_| Erased::default()).collect();
        Series { embedder: Arc::clone(self), dimensions, texts, runs, vectors }
    }
}

impl Series {
    /// The tensors of the next run, and the outputs that are wanted; none if there are enough.
    pub fn next(&self) -> Option<(Erased<Tensors>, Vec<String>)> {
        let run = self.runs.front()?;
        let embedder = &self.embedder;
        let width = embedder.width.or_else(|| self.lengths(run).max()).filter(|width| *width > 0)?;
        let rows = embedder.rows.unwrap_or(run.len());
        let column = |(column, info): &(Column, TensorInfo)| {
            let numbers = (0..rows).flat_map(|row| {
                let text = run.get(row).and_then(|place| self.texts.get(*place));
                (0..width).map(move |place| {
                    let token = text.and_then(|text| text.get(place)).copied();
                    column.number(place, token, embedder.encoder.pad())
                })
            });
            let data: Vec<u8> = match info.dtype {
                DataType::Int32 => numbers.flat_map(u32::to_le_bytes).collect(),
                _ => numbers.flat_map(|number| u64::from(number).to_le_bytes()).collect(),
            };
            let shape = Shape::new([rows as u64, width as u64]).ok()?;
            Some((info.name.clone(), Tensor::new(info.dtype, shape, data).ok()?))
        };
        let inputs = embedder.inputs.iter().map(column).collect::<Option<Tensors>>()?;
        Some((inputs.into(), vec![embedder.output.name.clone()]))
    }

    /// What the model gave in the run that [`next`](Self::next) told.
    ///
    /// # Errors
    /// [`InferError`] when that are no vectors.
    pub fn take(&mut self, mut answer: Tensors) -> Result<(), InferError> {
        let Some(run) = self.runs.pop_front() else { return Ok(()) };
        let output = &self.embedder.output;
        let given = answer.pop().map(|(_, tensor)| Erased::new(vec![tensor]));
        let unusable = || {
            InferError::BoxedRun(format!(
                "its output {} is not what a sentence encoder of {} numbers gives",
                output.name, output.size
            ))
        };
        let tensor = given.as_ref().and_then(|given| given.first()).ok_or_else(unusable)?;
        let dims = tensor.shape().dims();
        let rows = self.embedder.rows.unwrap_or(run.len());
        let mut lengths: Vec<usize> = self.lengths(&run).collect();
        let pooled = match (dims, output.each_token) {
            ([found, width, size], true) if *found == rows as u64 && *size == output.size as u64 => {
                // Rows without a text, where the model wants as many: of one token, and dropped.
                lengths.resize(rows, 1);
                let width = usize::try_from(*width).unwrap_or(usize::MAX);
                let hidden = Hidden { data: tensor.data(), width, size: output.size };
                self.embedder.encoder.pooling().and_then(|pooling| pooled(pooling, hidden, &lengths))
            }
            ([found, size], false) if *found == rows as u64 && *size == output.size as u64 => {
                let hidden = Hidden { data: tensor.data(), width: 1, size: output.size };
                pooled(confonnx_generate::embed::Pooling::First, hidden, &vec![1; rows])
            }
            _ => None,
        };
        let normalizes = self.embedder.encoder.normalizes();
        for (place, vector) in run.into_iter().zip(pooled.ok_or_else(unusable)?) {
            if let Some(room) = self.vectors.get_mut(place) {
                *room = finished(vector, self.dimensions, normalizes);
            }
        }
        Ok(())
    }

    /// The vectors, in the order of the texts.
    pub fn vectors(&self) -> &[Erased<Vec<f32>>] {
        &self.vectors
    }

    /// Tokens of all texts.
    pub fn tokens(&self) -> usize {
        self.texts.iter().map(|text| text.len()).fold(0, usize::saturating_add)
    }

    fn lengths<'s>(&'s self, run: &'s [usize]) -> impl Iterator<Item = usize> + 's {
        run.iter().map(|place| self.texts.get(*place).map_or(0, |text| text.len()))
    }
}

impl Column {
    fn number(self, place: usize, token: Option<u32>, pad: u32) -> u32 {
        match self {
            Self::Id => token.unwrap_or(pad),
            Self::Mask => u32::from(token.is_some()),
            Self::Type => 0,
            Self::Position => u32::try_from(place).unwrap_or(u32::MAX),
        }
    }
}

impl Output {
    /// By the names that published encoders give their outputs: each token's vectors if there is a pooling to apply and such an
    /// output (or a first one of that rank), else `sentence_embedding`.
    fn of(outputs: &[TensorInfo], pooling: bool) -> Option<Self> {
        let size = |info: &TensorInfo| info.shape.last().and_then(|size| usize::try_from(*size).ok());
        let is = |info: &TensorInfo, rank: usize| info.dtype == DataType::Fp32 && info.shape.len() == rank;
        let named = |name: &str, rank| outputs.iter().find(|info| info.name == name && is(info, rank));
        let tokens = || {
            let only = || outputs.first().filter(|info| is(info, 3));
            named("last_hidden_state", 3).or_else(|| named("token_embeddings", 3)).or_else(only)
        };
        let (info, each_token) = match tokens().filter(|_| pooling) {
            Some(info) => (info, true),
            None => (named("sentence_embedding", 2)?, false),
        };
        let size = size(info).filter(|size| *size > 0)?;
        Some(Self { name: info.name.clone(), each_token, size })
    }
}

/// The meaning of each input, if all are known.
fn columns(inputs: &[TensorInfo]) -> Option<Vec<(Column, TensorInfo)>> {
    let column = |info: &TensorInfo| {
        let column = match info.name.as_str() {
            "input_ids" => Column::Id,
            "attention_mask" => Column::Mask,
            "token_type_ids" => Column::Type,
            "position_ids" => Column::Position,
            _ => return None,
        };
        let fits = matches!(info.dtype, DataType::Int64 | DataType::Int32) && info.shape.len() == 2;
        fits.then(|| (column, info.clone()))
    };
    let all = inputs.iter().map(column).collect::<Option<Vec<_>>>()?;
    all.iter().any(|(column, _)| *column == Column::Id).then_some(all)
}

/// Numbers of a run's tokens: little is copied at a time, and others have their turn in between.
const RUN: usize = 1 << 20;
/// Tokens of a text of a model whose files do not say how many it reads.
const MOST_TOKENS: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, dtype: DataType, shape: &[i64]) -> TensorInfo {
        TensorInfo { name: name.into(), dtype, shape: shape.to_vec() }
    }

    #[test]
    fn published_encoders_are_known_by_their_names() {
        let ids = info("input_ids", DataType::Int64, &[-1, -1]);
        let mask = info("attention_mask", DataType::Int32, &[-1, 128]);
        assert!(columns(&[ids.clone(), mask.clone()]).is_some());
        assert!(columns(&[mask]).is_none());
        assert!(columns(&[ids.clone(), info("pixel_values", DataType::Int64, &[-1, -1])]).is_none());
        assert!(columns(&[info("input_ids", DataType::Fp32, &[-1, -1])]).is_none());
        let hidden = info("last_hidden_state", DataType::Fp32, &[-1, -1, 8]);
        let sentence = info("sentence_embedding", DataType::Fp32, &[-1, 4]);
        let found = |outputs: &[TensorInfo], pooling| {
            Output::of(outputs, pooling).map(|output| (output.name, output.each_token, output.size))
        };
        let both = [hidden.clone(), sentence];
        assert_eq!(found(&both, true), Some(("last_hidden_state".into(), true, 8)));
        assert_eq!(found(&both, false), Some(("sentence_embedding".into(), false, 4)));
        assert_eq!(found(&[hidden], false), None, "nobody says how it is pooled");
        assert_eq!(found(&[info("logits", DataType::Fp32, &[-1, 2])], true), None);
        assert_eq!(found(&[info("any", DataType::Fp32, &[-1, -1, 3])], true), Some(("any".into(), true, 3)));
        assert_eq!(found(&[info("any", DataType::Fp32, &[-1, -1, -1])], true), None);
    }
}

//! What is asked, and the answer that everyone has to give to the bit: that of ONNX Runtime in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use confonnx_engine::{LoadedModel, TensorInfo};
use confonnx_tensor::{DataType, Shape, Tensor};

/// Named tensors.
pub(crate) type Tensors = Vec<(String, Tensor<'static>)>;

/// A model that runs in this process as in the server, with one input for it and the answer to that input.
pub(crate) struct Bare {
    model: Arc<LoadedModel>,
    asking: AtomicUsize,
    pub(crate) inputs: Tensors,
    pub(crate) outputs: Tensors,
}

impl Bare {
    pub(crate) fn new(model: Arc<LoadedModel>) -> anyhow::Result<Self> {
        let inputs = model.inputs().iter().map(made_up).collect::<anyhow::Result<Tensors>>()?;
        let outputs = model.run(&inputs, &[])?;
        Ok(Self { model, asking: AtomicUsize::new(0), inputs, outputs })
    }

    /// Runs the model on the calling thread, with all cores if nobody else asks, as the server does.
    pub(crate) fn ask(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let run =
            if self.asking.fetch_add(1, Relaxed) > 0 { LoadedModel::run } else { LoadedModel::run_alone };
        let outputs = run(&self.model, &self.inputs, &[]);
        self.asking.fetch_sub(1, Relaxed);
        let outputs = outputs?;
        let time = start.elapsed();
        same(&self.outputs, &outputs).context("bare ONNX Runtime differs from itself")?;
        Ok(time)
    }

    /// Whether many requests have a thread each, and not all cores: the model's answers are known to be the same then.
    pub(crate) fn shares_cores(&self) -> bool {
        let arrangement = self.model.arrangement();
        arrangement.contains("alone") || arrangement.ends_with(" 1 thread")
    }

    /// What the model answers to other inputs.
    pub(crate) fn run(&self, inputs: &[(String, Tensor<'_>)]) -> anyhow::Result<Tensors> {
        Ok(self.model.run(inputs, &[])?)
    }

    /// The inputs, borrowed.
    pub(crate) fn borrowed(&self) -> Vec<(String, Tensor<'_>)> {
        self.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.borrowed())).collect()
    }
}

/// Numbers that are the same in every run: floats from 0 to 1; integers that are tokens, or 1 in a mask. A dynamic
/// batch has one row, any other dynamic dimension the length [`TOKENS`].
fn made_up(input: &TensorInfo) -> anyhow::Result<(String, Tensor<'static>)> {
    let dims = input.shape.iter().enumerate();
    let dims = dims.map(|(at, &dim)| u64::try_from(dim).unwrap_or(if at == 0 { 1 } else { TOKENS }));
    let shape = Shape::new(dims.collect::<Vec<u64>>())?;
    let mut state = 1_u32;
    let numbers = (0..shape.elements()).map(|_| {
        // A linear congruential generator with the constants of Numerical Recipes; a float holds the upper 24 bits of
        // its state.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    });
    let data: Vec<u8> = match input.dtype {
        DataType::Fp32 => {
            numbers.flat_map(|number| (number as f32 / (1 << 24) as f32).to_le_bytes()).collect()
        }
        DataType::Int64 if input.name.contains("mask") => numbers.flat_map(|_| 1_i64.to_le_bytes()).collect(),
        DataType::Int64 => {
            numbers.flat_map(|number| (1_000 + i64::from(number) % 20_000).to_le_bytes()).collect()
        }
        other => bail!("input {} is {other:?}; only FP32 and INT64 are made up here", input.name),
    };
    Ok((input.name.clone(), Tensor::new(input.dtype, shape, data)?))
}

/// Fails unless names, types, shapes and every bit are the same.
pub(crate) fn same(expected: &Tensors, found: &[(String, Tensor<'_>)]) -> anyhow::Result<()> {
    if expected.len() != found.len() {
        bail!("expected {} outputs, found {}", expected.len(), found.len());
    }
    for ((name, tensor), (found_name, found)) in expected.iter().zip(found) {
        let alike = name == found_name && tensor.dtype() == found.dtype() && tensor.shape() == found.shape();
        if !alike {
            bail!("expected output {name} {tensor:?}, found {found_name} {found:?}");
        }
        same_bytes(name, tensor.data(), found.data())?;
    }
    Ok(())
}

/// Fails unless every byte is the same.
pub(crate) fn same_bytes(name: &str, expected: &[u8], found: &[u8]) -> anyhow::Result<()> {
    if expected == found {
        return Ok(());
    }
    let at = expected.iter().zip(found).position(|(a, b)| a != b);
    bail!("output {name} differs from byte {} on", at.unwrap_or(expected.len().min(found.len())))
}

/// How many tokens a text has.
const TOKENS: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn output(values: [f32; 2]) -> Tensors {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        vec![("y".into(), Tensor::new(DataType::Fp32, Shape::new([2]).unwrap(), data).unwrap())]
    }

    #[test]
    fn outputs_are_compared_bit_by_bit() {
        same(&output([0.0, 1.0]), &output([0.0, 1.0])).unwrap();
        same(&output([f32::NAN, 1.0]), &output([f32::NAN, 1.0])).unwrap();
        let error = same(&output([1.0, 0.0]), &output([1.0, -0.0])).unwrap_err();
        assert_eq!(error.to_string(), "output y differs from byte 7 on");
        same(&output([1.0, 0.0]), &[]).unwrap_err();
        let mut renamed = output([1.0, 0.0]);
        renamed[0].0 = "z".into();
        same(&output([1.0, 0.0]), &renamed).unwrap_err();
        same_bytes("y", &[1, 2], &[1]).unwrap_err();
    }

    #[test]
    fn inputs_fit_the_model() {
        let info = TensorInfo { name: "x".into(), dtype: DataType::Fp32, shape: vec![-1, 16] };
        let (name, tensor) = made_up(&info).unwrap();
        assert_eq!((name.as_str(), tensor.shape().dims(), tensor.data().len()), ("x", &[1, 16][..], 64));
        let (numbers, []) = tensor.data().as_chunks() else { panic!("16 floats") };
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(&f32::from_le_bytes(*number))));

        let info = TensorInfo { name: "attention_mask".into(), dtype: DataType::Int64, shape: vec![-1, -1] };
        let (_, mask) = made_up(&info).unwrap();
        assert_eq!(
            (mask.shape().dims(), mask.data()[..9].to_vec()),
            (&[1, 128][..], vec![1, 0, 0, 0, 0, 0, 0, 0, 1])
        );
    }
}

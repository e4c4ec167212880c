use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use confonnx_client::json;
use confonnx_model::{Dim, ValueInfo, write_tensor_proto};
use confonnx_tensor::{DataType, Shape, Tensor};
use half::{bf16, f16};

use crate::{model, print};

/// Make random inputs for a model: input_0.pb, input_1.pb, … and inputs.json
///
/// Floats lie in [0, 1), 8-bit integers in 0 to 9, others are 0 or 1, as ids, masks and token types can be. The same seed gives
/// the same inputs.
#[derive(Args)]
pub(crate) struct CreateTestInputs {
    /// The .onnx file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder to write to, or one file with all inputs, whose name ends in .json
    #[arg(long, value_name = "DIR|FILE.json", default_value = ".")]
    out: PathBuf,
    /// Size of a dynamic dimension; 1 when not given
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dimension)]
    dims: Vec<(String, u64)>,
    /// Seed of the random values
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl CreateTestInputs {
    pub(crate) fn run(&self) -> Result<()> {
        let info = model::read(&self.model)?;
        for (name, _) in &self.dims {
            let named = |dim: &Dim| matches!(dim, Dim::Symbolic(found) if found == name);
            if !info.inputs.iter().flat_map(|input| input.shape.iter().flatten()).any(named) {
                bail!("no input has a dimension named `{name}`: see `confonnx model-info`");
            }
        }
        let mut random = Random(self.seed);
        let inputs: Vec<_> = info
            .inputs
            .iter()
            .map(|input| {
                let most = info.indices.get(&input.name).copied().unwrap_or(i64::MAX);
                let tensor = self.tensor(input, most, &mut random);
                Ok((input.name.clone(), tensor.with_context(|| format!("input `{}`", input.name))?))
            })
            .collect::<Result<_>>()?;
        let json = (json::write(&inputs)? + "\n").into_bytes();
        if self.out.extension().is_some_and(|extension| extension == "json") && !self.out.is_dir() {
            fs::write(&self.out, json).with_context(|| format!("cannot write {}", self.out.display()))?;
            return Ok(print(&self.out.display().to_string())?);
        }
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        let write = |file: String, content: Vec<u8>| {
            let path = self.out.join(file);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(print(&path.display().to_string())?)
        };
        for (i, (name, tensor)) in inputs.iter().enumerate() {
            write(format!("input_{i}.pb"), write_tensor_proto(name, tensor))?;
        }
        write("inputs.json".into(), json)
    }

    /// A random tensor for `input`; indices are below `most`.
    fn tensor(&self, input: &ValueInfo, most: i64, random: &mut Random) -> Result<Tensor<'static>> {
        let Some(dims) = &input.shape else { bail!("the model does not say how many dimensions it has") };
        let dims = dims.iter().map(|dim| self.size(dim)).collect::<Result<Vec<_>>>()?;
        let shape = Shape::new(dims)?;
        let elements = shape.elements();
        if elements > MAX_ELEMENTS {
            bail!("expected at most {MAX_ELEMENTS} elements, found {elements}");
        }
        if input.dtype == DataType::Bytes {
            let items: Vec<_> = (0..elements).map(|i| format!("string {i}")).collect();
            return Ok(Tensor::from_strings(shape, &items)?);
        }
        let mut data = Vec::new();
        for _ in 0..elements {
            random.element(input.dtype, most, &mut data);
        }
        Ok(Tensor::new(input.dtype, shape, data)?)
    }

    fn size(&self, dim: &Dim) -> Result<u64> {
        match dim {
            Dim::Fixed(size) => Ok(u64::try_from(*size)?),
            Dim::Symbolic(name) => {
                Ok(self.dims.iter().find(|(given, _)| given == name).map_or(1, |(_, size)| *size))
            }
            Dim::Unknown => Ok(1),
        }
    }
}

/// SplitMix64: for test values, not for secrets.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn element(&mut self, dtype: DataType, most: i64, data: &mut Vec<u8>) {
        let bits = self.next();
        // Integers of more than 8 bits are 0 or 1: they may be indices into a table of unknown size, or one of two
        // token types.
        let wide = !matches!(dtype, DataType::Uint8 | DataType::Int8 | DataType::Bool);
        let below = most.clamp(1, if wide { 2 } else { 10 }) as u64;
        let digit = bits.checked_rem(below).unwrap_or_default() as u8;
        // Ten bits are exact in half precision, so no value rounds up to 1.
        let unit = (bits >> 54) as f32 / 1024.0;
        match dtype {
            DataType::Bool => data.push(u8::from(digit % 2 == 1)),
            DataType::Uint8 | DataType::Int8 => data.push(digit),
            DataType::Uint16 | DataType::Int16 => data.extend(u16::from(digit).to_le_bytes()),
            DataType::Uint32 | DataType::Int32 => data.extend(u32::from(digit).to_le_bytes()),
            DataType::Uint64 | DataType::Int64 => data.extend(u64::from(digit).to_le_bytes()),
            DataType::Fp16 => data.extend(f16::from_f32(unit).to_le_bytes()),
            DataType::Bf16 => data.extend(bf16::from_f32((unit * 128.0).floor() / 128.0).to_le_bytes()),
            DataType::Fp32 => data.extend(unit.to_le_bytes()),
            DataType::Fp64 => data.extend(f64::from(unit).to_le_bytes()),
            DataType::Bytes => {}
        }
    }
}

fn dimension(text: &str) -> Result<(String, u64), String> {
    let expected = || format!("expected NAME=SIZE, found `{text}`");
    let (name, size) = text.split_once('=').ok_or_else(expected)?;
    Ok((name.into(), size.parse().map_err(|_| expected())?))
}

const MAX_ELEMENTS: usize = 1 << 28;

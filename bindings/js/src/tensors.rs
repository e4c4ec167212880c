//! Named tensors from JavaScript and to it. Numbers are little-endian, as in WebAssembly's memory and in every typed
//! array of a machine that runs it.

use confonnx_client::json::{type_from_name, type_name};
use confonnx_client::{Shape, Tensor};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::{error, options};

/// Inputs of a call.
#[wasm_bindgen]
#[derive(Default)]
pub struct Inputs(pub(crate) Vec<(String, Tensor<'static>)>);

#[wasm_bindgen]
impl Inputs {
    /// A call's inputs, none so far.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input, whose type has NumPy's name; each string comes after its length in four bytes.
    pub fn add(&mut self, name: String, dtype: &str, shape: &[f64], data: Vec<u8>) -> Result<(), String> {
        let wrong = |problem: String| error::argument(&format!("input `{name}`"), problem);
        let dtype = type_from_name(dtype).ok_or_else(|| wrong(format!("unknown type {dtype:?}")))?;
        let dims: Option<Vec<u64>> = shape.iter().copied().map(options::whole).collect();
        let dims =
            dims.ok_or_else(|| wrong(format!("expected a shape of whole numbers, found {shape:?}")))?;
        let shape = Shape::new(dims).map_err(|err| wrong(err.to_string()))?;
        let tensor = Tensor::new(dtype, shape, data).map_err(|err| wrong(err.to_string()))?;
        self.0.push((name, tensor));
        Ok(())
    }
}

/// Outputs of a call.
#[wasm_bindgen]
pub struct Outputs(pub(crate) std::vec::IntoIter<(String, Tensor<'static>)>);

/// A named tensor.
#[wasm_bindgen]
pub struct Output {
    name: String,
    tensor: Option<Tensor<'static>>,
}

#[wasm_bindgen]
impl Outputs {
    /// The next output, if there is one more.
    #[wasm_bindgen(js_name = next)]
    pub fn take_next(&mut self) -> Option<Output> {
        self.0.next().map(|(name, tensor)| Output { name, tensor: Some(tensor) })
    }
}

#[wasm_bindgen]
impl Output {
    /// The tensor's name.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// NumPy's name of the tensor's type.
    #[wasm_bindgen(getter)]
    pub fn dtype(&self) -> String {
        self.tensor.as_ref().map(|tensor| type_name(tensor.dtype()).to_owned()).unwrap_or_default()
    }

    /// The tensor's shape.
    #[wasm_bindgen(getter)]
    pub fn shape(&self) -> Vec<f64> {
        self.tensor.iter().flat_map(|tensor| tensor.shape().dims()).map(|dim| *dim as f64).collect()
    }

    /// The tensor's bytes; empty when they were taken before.
    pub fn take(&mut self) -> Vec<u8> {
        self.tensor.take().map(|tensor| tensor.into_data().into_owned()).unwrap_or_default()
    }
}

//! Named tensors.

use std::ffi::{CString, c_char};

use confonnx_client::json::{type_from_name, type_name};
use confonnx_client::{DataType, Shape, Tensor};

use crate::error::{ConfonnxCode, ConfonnxError, Failure};
use crate::pointer::{self, c_text};

/// Inputs of a call.
#[derive(Default)]
pub struct ConfonnxInputs(Vec<(String, Tensor<'static>)>);

/// Outputs of a call, in order.
pub struct ConfonnxOutputs(Vec<Output>);

struct Output {
    name: CString,
    dtype: CString,
    tensor: Tensor<'static>,
    /// Where each string begins and how long it is.
    items: Vec<(usize, usize)>,
}

/// A call's inputs, none so far.
#[unsafe(no_mangle)]
pub extern "C" fn confonnx_inputs_new() -> *mut ConfonnxInputs {
    pointer::hand_out(ConfonnxInputs::default())
}

/// Frees inputs.
///
/// # Safety
/// `inputs` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_inputs_free(inputs: *mut ConfonnxInputs) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(inputs) }
}

/// Adds an input: `dtype` is NumPy's name of the type (`float32`, `int64`, `bool`, …), `shape` has `rank` lengths, outermost
/// first, and `data` `len` bytes in this machine's order, which are copied.
///
/// # Safety
/// `inputs` was given out by this library and not freed; `name` and `dtype` are texts; `shape` and `data` point to as much
/// as said; `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_inputs_add(
    inputs: *mut ConfonnxInputs,
    name: *const c_char,
    dtype: *const c_char,
    shape: *const u64,
    rank: usize,
    data: *const u8,
    len: usize,
    error: *mut *mut ConfonnxError,
) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe {
        pointer::check(error, || {
            let dtype = pointer::text(dtype, "dtype")?;
            let known = type_from_name(dtype).filter(|dtype| *dtype != DataType::Bytes);
            let known = known.ok_or_else(|| {
                Failure::argument(
                    "dtype",
                    format!("expected a type of numbers such as float32, found {dtype:?}"),
                )
            })?;
            let shape = pointer::slice(shape, rank, "shape")?;
            let data = pointer::slice(data, len, "data")?;
            pointer::borrow_mut(inputs, "inputs")?
                .add(pointer::text(name, "name")?, shape, |shape| Tensor::new(known, shape, data.to_vec()))
        })
    }
}

/// Adds an input of strings: `count` texts, copied, arranged by `shape`.
///
/// # Safety
/// `inputs` was given out by this library and not freed; `name` is a text; `shape` and `items` point to as much as said;
/// `error` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_inputs_add_strings(
    inputs: *mut ConfonnxInputs,
    name: *const c_char,
    shape: *const u64,
    rank: usize,
    items: *const *const c_char,
    count: usize,
    error: *mut *mut ConfonnxError,
) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe {
        pointer::check(error, || {
            let shape = pointer::slice(shape, rank, "shape")?;
            let items = pointer::slice(items, count, "items")?
                .iter()
                .map(|item| pointer::text(*item, "items"))
                .collect::<Result<Vec<_>, _>>()?;
            pointer::borrow_mut(inputs, "inputs")?
                .add(pointer::text(name, "name")?, shape, |shape| Tensor::from_strings(shape, &items))
        })
    }
}

/// Frees outputs.
///
/// # Safety
/// `outputs` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_outputs_free(outputs: *mut ConfonnxOutputs) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(outputs) }
}

/// How many outputs there are.
///
/// # Safety
/// `outputs` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_outputs_count(outputs: *const ConfonnxOutputs) -> usize {
    // SAFETY: as the caller says.
    unsafe { outputs.as_ref() }.map_or(0, |outputs| outputs.0.len())
}

/// The name of output `index`; null if there are not so many.
///
/// # Safety
/// `outputs` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_outputs_name(
    outputs: *const ConfonnxOutputs,
    index: usize,
) -> *const c_char {
    // SAFETY: as the caller says.
    unsafe { output(outputs, index) }.map_or(std::ptr::null(), |output| output.name.as_ptr())
}

/// NumPy's name of an output's type, `string` for strings; null if there are not so many outputs.
///
/// # Safety
/// `outputs` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_outputs_dtype(
    outputs: *const ConfonnxOutputs,
    index: usize,
) -> *const c_char {
    // SAFETY: as the caller says.
    unsafe { output(outputs, index) }.map_or(std::ptr::null(), |output| output.dtype.as_ptr())
}

/// The lengths of an output's dimensions, outermost first, `rank` of them; null if there are not so many outputs.
///
/// # Safety
/// `outputs` is null, or was given out by this library and not freed; `rank` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_outputs_shape(
    outputs: *const ConfonnxOutputs,
    index: usize,
    rank: *mut usize,
) -> *const u64 {
    // SAFETY: as the caller says.
    let dims = unsafe { output(outputs, index) }.map(|output| output.tensor.shape().dims());
    // SAFETY: as the caller says.
    unsafe { given(dims, rank) }
}

/// The values of an output, `len` bytes in this machine's order; null if there are not so many outputs. Of strings see
/// `confonnx_outputs_string`.
///
/// # Safety
/// `outputs` is null, or was given out by this library and not freed; `len` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_outputs_data(
    outputs: *const ConfonnxOutputs,
    index: usize,
    len: *mut usize,
) -> *const u8 {
    // SAFETY: as the caller says.
    let data = unsafe { output(outputs, index) }.map(|output| output.tensor.data());
    // SAFETY: as the caller says.
    unsafe { given(data, len) }
}

/// String `element` of output `index` in row-major order, `len` bytes without a null byte after them; null if there are
/// not so many outputs or strings.
///
/// # Safety
/// `outputs` is null, or was given out by this library and not freed; `len` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_outputs_string(
    outputs: *const ConfonnxOutputs,
    index: usize,
    element: usize,
    len: *mut usize,
) -> *const u8 {
    // SAFETY: as the caller says.
    let item = unsafe { output(outputs, index) }.and_then(|output| {
        let (start, len) = *output.items.get(element)?;
        output.tensor.data().get(start..start.checked_add(len)?)
    });
    // SAFETY: as the caller says.
    unsafe { given(item, len) }
}

impl ConfonnxInputs {
    pub(crate) fn borrowed(&self) -> Vec<(String, Tensor<'_>)> {
        self.0.iter().map(|(name, tensor)| (name.clone(), tensor.borrowed())).collect()
    }

    fn add<E: std::fmt::Display>(
        &mut self,
        name: &str,
        shape: &[u64],
        tensor: impl FnOnce(Shape) -> Result<Tensor<'static>, E>,
    ) -> Result<(), Failure> {
        let wrong = |problem: &dyn std::fmt::Display| Failure::argument(&format!("input `{name}`"), problem);
        let shape = Shape::new(shape.to_vec()).map_err(|err| wrong(&err))?;
        let tensor = tensor(shape).map_err(|err| wrong(&err))?;
        self.0.push((name.into(), tensor));
        Ok(())
    }
}

impl ConfonnxOutputs {
    pub(crate) fn new(found: Vec<(String, Tensor<'static>)>) -> Self {
        let output = |(name, tensor): (String, Tensor<'static>)| {
            let mut at = 0_usize;
            let items = match tensor.dtype() {
                DataType::Bytes => tensor
                    .items()
                    .map(|item| {
                        // Each string comes after its length in four bytes.
                        let start = at.saturating_add(4);
                        at = start.saturating_add(item.len());
                        (start, item.len())
                    })
                    .collect(),
                _ => Vec::new(),
            };
            Output { name: c_text(&name), dtype: c_text(type_name(tensor.dtype())), tensor, items }
        };
        Self(found.into_iter().map(output).collect())
    }
}

/// # Safety
/// `outputs` is null, or was given out by this library and not freed.
unsafe fn output<'a>(outputs: *const ConfonnxOutputs, index: usize) -> Option<&'a Output> {
    // SAFETY: as the caller says.
    unsafe { outputs.as_ref() }?.0.get(index)
}

/// # Safety
/// `len` is null or can be written to.
unsafe fn given<T>(values: Option<&[T]>, len: *mut usize) -> *const T {
    if !len.is_null() {
        // SAFETY: not null, and as the caller says.
        unsafe { len.write(values.map_or(0, <[T]>::len)) };
    }
    values.map_or(std::ptr::null(), <[T]>::as_ptr)
}

//! Strings of ONNX Runtime's tensors as bytes.
//!
//! To ONNX Runtime a string is bytes with a length. The `ort` crate's safe functions write it as a C string, which ends at a
//! NUL, and read it as UTF-8 or not at all; these do neither.

use ort::{
    AsPointer,
    value::{DynValue, Tensor},
};

/// A tensor of strings. `dims` has as many elements as there are `items`.
///
/// # Errors
/// When it has not, or memory is short.
pub fn strings_from_bytes(dims: &[i64], items: &[&[u8]]) -> ort::Result<DynValue> {
    let empty = vec![""; items.len()];
    let mut value = Tensor::from_string_array((dims, empty.as_slice()))?;
    for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_empty()) {
        fill(&mut value, index, item)?;
    }
    Ok(value.into_dyn())
}

/// The strings of a tensor of `elements` strings: all bytes, one string after another, and where each begins.
///
/// # Errors
/// When it is no tensor of as many strings.
pub fn strings_to_bytes(value: &DynValue, elements: usize) -> ort::Result<(Vec<u8>, Vec<usize>)> {
    let mut total = 0;
    length(value, &mut total)?;
    let (mut bytes, mut offsets) = (vec![0; total], vec![0; elements]);
    content(value, &mut bytes, &mut offsets)?;
    Ok((bytes, offsets))
}

#[allow(unsafe_code)]
fn fill(value: &mut Tensor<String>, index: usize, item: &[u8]) -> ort::Result<()> {
    let mut buffer = std::ptr::null_mut();
    // SAFETY: `value` is a live tensor of strings that nobody else has; ONNX Runtime checks `index`, and sets `buffer`
    // to `item.len()` bytes of that element before it says success.
    let status = unsafe {
        (ort::api().GetResizedStringTensorElementBuffer)(value.ptr_mut(), index, item.len(), &raw mut buffer)
    };
    // SAFETY: the status comes from that call and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    if buffer.is_null() {
        return Err(ort::Error::new("no memory for a string"));
    }
    // SAFETY: `buffer` has `item.len()` writable bytes, is not in `item`, and stays where it is until the tensor changes.
    unsafe { std::ptr::copy_nonoverlapping(item.as_ptr(), buffer.cast(), item.len()) };
    Ok(())
}

#[allow(unsafe_code)]
fn length(value: &DynValue, total: &mut usize) -> ort::Result<()> {
    // SAFETY: both pointers are to live values; ONNX Runtime refuses what is no tensor of strings.
    let status = unsafe { (ort::api().GetStringTensorDataLength)(value.ptr(), total) };
    // SAFETY: the status comes from that call and is used once.
    unsafe { ort::Error::result_from_status(status) }
}

#[allow(unsafe_code)]
fn content(value: &DynValue, bytes: &mut [u8], offsets: &mut [usize]) -> ort::Result<()> {
    // SAFETY: both buffers are given with their lengths; ONNX Runtime refuses lengths that are not those of `value`.
    let status = unsafe {
        (ort::api().GetStringTensorContent)(
            value.ptr(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            offsets.as_mut_ptr(),
            offsets.len(),
        )
    };
    // SAFETY: the status comes from that call and is used once.
    unsafe { ort::Error::result_from_status(status) }
}

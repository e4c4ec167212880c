//! Whether a model answers the same however many threads its operators have.
//!
//! ONNX Runtime shares out the work of an operator by its shapes and the threads there are; some kernels add in another order, or
//! take another path, for another share. So models run with one number of threads, whoever asks, unless they are known to be
//! safe and a trial with several rows and values of all sizes agrees. The lists were made by measuring: `scripts/sweep-widths`
//! runs each operator in many shapes with 1 to 4 threads and compares every bit.

use ort::session::Session;

use crate::{
    port::Ports,
    run::infer,
    trial::{ANY_SIZE, Fill, Made},
};

/// Whether a model of these operators, each as `Conv` or `com.microsoft:Gelu`, may be run by sessions of different widths if a
/// trial agrees. `fixed`: every input is of reals and of one shape. None given: not known, so no.
///
/// What was seen to differ for some shapes is safe where there is but one shape, which the trial tries.
pub fn width_is_free<'o>(operators: impl IntoIterator<Item = &'o str>, fixed: bool) -> bool {
    let mut operators = operators.into_iter().peekable();
    let safe = |operator| SAFE.contains(&operator) || (fixed && SAFE_FOR_A_SHAPE.contains(&operator));
    operators.peek().is_some() && operators.all(safe)
}

/// Whether two sessions give the same bits for whatever can be made up: the same errors too, but at least one answer.
pub(crate) fn agree(ports: &Ports, one: &mut Session, other: &mut Session) -> bool {
    let mut seen = false;
    for (count, any) in [(1_u64, ANY_SIZE), (3, ANY_SIZE), (2, 33), (7, 24), (1, 70)] {
        for fill in [Fill::Unit, Fill::Wide] {
            let rows: Vec<_> = (0..count).map(|number| (number, fill)).collect();
            let Some(inputs) = (Made { axis: 0, any }).all(&ports.inputs, &rows) else { continue };
            match (
                infer(one, &ports.outputs, &inputs, &[], false),
                infer(other, &ports.outputs, &inputs, &[], false),
            ) {
                (Ok(one), Ok(other)) if one == other => seen = true,
                (Err(_), Err(_)) => {}
                _ => return false,
            }
        }
    }
    seen
}

/// Operators that were never seen to differ.
const SAFE: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "AveragePool",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Equal",
    "Erf",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pad",
    "Reciprocal",
    "ReduceMax",
    "ReduceMin",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Sign",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Operators that share out their work by the shapes alone.
const SAFE_FOR_A_SHAPE: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "Einsum",
    "Elu",
    "Exp",
    "Gemm",
    "LRN",
    "Log",
    "LogSoftmax",
    "LpPool",
    "MatMul",
    "Mish",
    "Pow",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "Resize",
    "Selu",
    "Softplus",
    "Softsign",
    "Upsample",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_free() {
        assert!(width_is_free(["Relu", "MaxPool"], false));
        assert!(!width_is_free(["Relu", "Conv"], false));
        assert!(width_is_free(["Relu", "Conv"], true));
        assert!(!width_is_free(["Conv", "com.microsoft:DynamicQuantizeLSTM"], true));
        assert!(!width_is_free([], true));
    }
}

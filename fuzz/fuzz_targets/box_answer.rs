#![no_main]

use confonnx_engine::BoxAnswer as Answer;
use confonnx_tensor::DataType;
use libfuzzer_sys::fuzz_target;

// The first byte says how many outputs were asked for, as many bytes after it of which types; the rest is the box's answer.
fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else { return };
    let Some((types, said)) = rest.split_at_checked(usize::from(*count)) else { return };
    let all = DataType::ALL;
    let wanted: Vec<DataType> = types.iter().map(|code| all[usize::from(*code) % all.len()]).collect();
    const LIMIT: u64 = 1 << 20;
    if let Ok(answer) = Answer::decode(said, &wanted, LIMIT) {
        match answer {
            Answer::Done(parts) => {
                assert!(parts.iter().map(|part| part.dtype).eq(wanted));
                let lens = parts.iter().map(|part| part.bytes.end.checked_sub(part.bytes.start).expect("a range"));
                assert!(lens.sum::<u64>() <= LIMIT);
                for part in parts {
                    let Some(size) = part.dtype.size() else { continue };
                    let len = part.bytes.end - part.bytes.start;
                    assert_eq!(part.shape.elements() as u64 * size as u64, len);
                }
            }
            Answer::TooLong(len) => assert!(len > LIMIT),
            Answer::Failed(_, text) => assert!(!text.chars().any(char::is_control)),
        }
    }
});

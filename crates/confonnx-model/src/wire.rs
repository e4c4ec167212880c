//! Protobuf messages field by field, to change some and keep the others as they are, whatever they are.

/// A field as it stands in the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'m> {
    pub(crate) number: u64,
    /// Tag and value.
    pub(crate) whole: &'m [u8],
    /// The content, of a field that has a length: a string, bytes or a message. Empty for others.
    pub(crate) content: &'m [u8],
}

/// Every field of `message`, in order; none if it is no message.
pub(crate) fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let (mut rest, mut fields) = (message, Vec::new());
    while !rest.is_empty() {
        let start = rest;
        let tag = varint(&mut rest)?;
        let content = match tag & 7 {
            0 => varint(&mut rest).map(|_| [].as_slice())?,
            1 => take(&mut rest, 8).map(|_| [].as_slice())?,
            2 => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                take(&mut rest, len)?
            }
            5 => take(&mut rest, 4).map(|_| [].as_slice())?,
            // Groups: ONNX has none.
            _ => return None,
        };
        let whole = start.get(..start.len().checked_sub(rest.len())?)?;
        fields.push(Field { number: tag >> 3, whole, content });
    }
    Some(fields)
}

/// Appends a field that has a length.
pub(crate) fn put(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends a field that is a number.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

fn take<'m>(rest: &mut &'m [u8], len: usize) -> Option<&'m [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_kept() {
        let mut message = Vec::new();
        put_number(&mut message, 1, 300);
        put(&mut message, 2000, b"text");
        let found = fields(&message).unwrap();
        assert_eq!(found.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 2000]);
        assert_eq!(found[1].content, b"text");
        assert_eq!(found.iter().flat_map(|field| field.whole).copied().collect::<Vec<_>>(), message);
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        let mut message = Vec::new();
        put(&mut message, 1, &[7; 200]);
        for end in 1..message.len() {
            assert!(fields(&message[..end]).is_none(), "{end}");
        }
        assert!(fields(&[0x80; 11]).is_none());
        assert!(fields(&[0x0b]).is_none(), "a group");
    }
}

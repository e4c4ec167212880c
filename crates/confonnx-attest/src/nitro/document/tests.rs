use ciborium::cbor;
use proptest::prelude::*;

use super::*;

/// A payload with all members, of which `change` makes another.
fn payload(change: impl FnOnce(&mut Vec<(Value, Value)>)) -> Vec<u8> {
    let pcrs = (0..16).map(|index| (Value::from(index), Value::Bytes(vec![index + 1; 48]))).collect();
    let mut members = vec![
        ("module_id".into(), "i-1-enc1".into()),
        ("digest".into(), "SHA384".into()),
        ("timestamp".into(), Value::from(1_700_000_000_000_u64)),
        ("pcrs".into(), Value::Map(pcrs)),
        ("certificate".into(), Value::Bytes(vec![1])),
        ("cabundle".into(), Value::Array(vec![Value::Bytes(vec![2]), Value::Bytes(vec![3])])),
        ("public_key".into(), Value::Null),
        ("user_data".into(), Value::Bytes(vec![4; 64])),
    ];
    change(&mut members);
    encoded(&Value::Map(members))
}

fn framed(payload: &[u8]) -> Vec<u8> {
    outer(vec![
        Value::Bytes(PROTECTED.to_vec()),
        Value::Map(Vec::new()),
        Value::Bytes(payload.to_vec()),
        Value::Bytes(vec![9; 96]),
    ])
}

fn outer(parts: Vec<Value>) -> Vec<u8> {
    encoded(&Value::Array(parts))
}

/// The document whose member `name` is `value`.
fn with(name: &str, value: Value) -> Result<Document, ParseError> {
    Document::parse(&framed(&payload(|members| {
        members.retain(|(key, _)| key.as_text() != Some(name));
        members.push((name.into(), value));
    })))
}

fn pcr_map(entries: &[(i64, usize)]) -> Value {
    Value::Map(entries.iter().map(|&(i, len)| (Value::from(i), Value::Bytes(vec![1; len]))).collect())
}

#[test]
fn tagged_and_untagged_documents_are_read() {
    let bytes = framed(&payload(|_| {}));
    let document = Document::parse(&bytes).unwrap();
    assert_eq!((document.module_id.as_str(), document.timestamp_ms), ("i-1-enc1", 1_700_000_000_000));
    assert_eq!((document.pcrs.len(), document.pcr(2)), (16, [3; 48]));
    assert_eq!((document.certificate.as_slice(), document.cabundle.len()), (&[1][..], 2));
    assert_eq!((&document.public_key, &document.nonce), (&None, &None));
    assert_eq!(document.user_data, Some(vec![4; 64]));
    assert_eq!(Document::parse(&[TAG, &bytes].concat()), Ok(document));
}

#[test]
fn what_is_signed_is_the_sig_structure() {
    let document = Document::parse(&framed(&payload(|_| {}))).unwrap();
    let expected = cbor!([
        "Signature1",
        Value::Bytes(PROTECTED.to_vec()),
        Value::Bytes(vec![]),
        Value::Bytes(payload(|_| {}))
    ]);
    assert_eq!(document.signed(), encoded(&expected.unwrap()));
    assert!(document.signed().starts_with(b"\x84\x6aSignature1\x44\xa1\x01\x38\x22\x40"));
}

#[test]
fn framing_has_one_form() {
    let good = payload(|_| {});
    let (header, empty) = (Value::Bytes(PROTECTED.to_vec()), Value::Map(Vec::new()));
    let (body, signature) = (Value::Bytes(good.clone()), Value::Bytes(vec![9; 96]));
    let es256 = Value::Bytes(vec![0xa1, 0x01, 0x26]);
    let extra = Value::Map(vec![(Value::from(4), Value::Bytes(vec![1]))]);
    let cases = [
        ("another algorithm", outer(vec![es256, empty.clone(), body.clone(), signature.clone()])),
        ("an unprotected header", outer(vec![header.clone(), extra, body.clone(), signature.clone()])),
        ("no signature", outer(vec![header.clone(), empty.clone(), body.clone()])),
        ("a detached payload", outer(vec![header.clone(), empty.clone(), Value::Null, signature.clone()])),
        ("five parts", outer(vec![header, empty.clone(), body, signature, empty])),
        ("another tag", [&[0xd1], framed(&good).as_slice()].concat()),
        ("two tags", [TAG, TAG, framed(&good).as_slice()].concat()),
        ("a longer length", {
            let bytes = framed(&good);
            // The array's length 4 as one byte more.
            [&[0x98, 4], &bytes[1..]].concat()
        }),
        ("an indefinite length", {
            let bytes = framed(&good);
            [&[0x9f], &bytes[1..], &[0xff]].concat()
        }),
    ];
    for (case, bytes) in cases {
        assert_eq!(Document::parse(&bytes), Err(ParseError::Framing), "{case}");
    }
    let bytes = framed(&good);
    let trailing = ParseError::Trailing { what: "the report", surplus: 1 };
    assert_eq!(Document::parse(&[&bytes[..], &[0]].concat()), Err(trailing));
    assert_eq!(Document::parse(&bytes[..bytes.len() - 1]), Err(ParseError::Cbor { what: "the report" }));
    assert_eq!(Document::parse(&[]), Err(ParseError::Cbor { what: "the report" }));
    let trailing = ParseError::Trailing { what: "the payload", surplus: 1 };
    assert_eq!(Document::parse(&framed(&[&good[..], &[0]].concat())), Err(trailing));
    assert_eq!(Document::parse(&vec![0; MAX_BYTES + 1]), Err(ParseError::TooLong { found: MAX_BYTES + 1 }));
    // Deep nesting is refused before it can exhaust the stack.
    assert_eq!(Document::parse(&vec![0x81; MAX_BYTES]), Err(ParseError::Cbor { what: "the report" }));
    // A length of 2^60 bytes allocates nothing.
    let huge = [&[0x84, 0x5b, 0x10], &[0; 7][..]].concat();
    assert_eq!(Document::parse(&huge), Err(ParseError::Cbor { what: "the report" }));
}

#[test]
fn signatures_are_96_bytes() {
    let (header, empty) = (Value::Bytes(PROTECTED.to_vec()), Value::Map(Vec::new()));
    let bytes = outer(vec![header, empty, Value::Bytes(payload(|_| {})), Value::Bytes(vec![9; 95])]);
    let error = ParseError::Length { member: "signature", expected: "96", found: 95 };
    assert_eq!(Document::parse(&bytes), Err(error));
}

#[test]
fn members_are_all_there_once_and_known() {
    for missing in ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"] {
        let bytes = framed(&payload(|members| members.retain(|(key, _)| key.as_text() != Some(missing))));
        assert_eq!(Document::parse(&bytes), Err(ParseError::Missing { member: missing }));
        assert!(
            matches!(with(missing, Value::Null), Err(ParseError::Type { member, .. }) if member == missing)
        );
    }
    for twice in
        ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key", "user_data"]
    {
        let bytes = framed(&payload(|members| {
            let again = members.iter().find(|(key, _)| key.as_text() == Some(twice)).unwrap().clone();
            members.push(again);
        }));
        assert_eq!(Document::parse(&bytes), Err(ParseError::Twice { member: twice }));
    }
    assert_eq!(with("colour", "red".into()), Err(ParseError::Unknown { member: "colour".into() }));
    let bytes = framed(&payload(|members| members.push((Value::from(1), Value::Null))));
    assert!(matches!(Document::parse(&bytes), Err(ParseError::Type { member: "payload", .. })));
    assert!(matches!(Document::parse(&framed(&[0x80])), Err(ParseError::Type { member: "payload", .. })));
}

#[test]
fn members_have_their_types_and_sizes() {
    let registers = |extra: (i64, usize)| pcr_map(&[(0, 48), (1, 48), (2, 48), extra]);
    let many = Value::Map((0..33).map(|i| (Value::from(i), Value::Bytes(vec![1; 48]))).collect());
    let bytes = |len| Value::Bytes(vec![1; len]);
    let type_cases = [
        ("digest", "SHA256".into()),
        ("timestamp", Value::from(0)),
        ("timestamp", Value::from(-1)),
        ("timestamp", "now".into()),
        ("pcrs", bytes(1)),
        ("pcrs", registers((32, 48))),
        ("pcrs", registers((-1, 48))),
        ("pcrs", Value::Map(vec![(Value::from(0), "text".into())])),
        ("certificate", "text".into()),
        ("cabundle", bytes(1)),
        ("cabundle", Value::Array(vec!["text".into()])),
        ("public_key", "text".into()),
        ("user_data", Value::Array(Vec::new())),
        ("nonce", Value::from(1)),
    ];
    for (member, value) in type_cases {
        let found = with(member, value.clone());
        assert!(
            matches!(found, Err(ParseError::Type { member: at, .. }) if at == member),
            "{value:?}: {found:?}"
        );
    }
    let length_cases = [
        ("module_id", "".into()),
        ("module_id", "x".repeat(257).into()),
        ("pcrs", many),
        ("pcrs", Value::Map(Vec::new())),
        ("pcrs", registers((3, 47))),
        ("pcrs", registers((3, 32))),
        ("certificate", bytes(0)),
        ("certificate", bytes(1025)),
        ("cabundle", Value::Array(Vec::new())),
        ("cabundle", Value::Array(vec![bytes(1); 9])),
        ("cabundle", Value::Array(vec![bytes(1025)])),
        ("nonce", bytes(1025)),
    ];
    for (member, value) in length_cases {
        let found = with(member, value.clone());
        assert!(
            matches!(found, Err(ParseError::Length { member: at, .. }) if at == member),
            "{value:?}: {found:?}"
        );
    }
    assert_eq!(with("pcrs", registers((0, 48))), Err(ParseError::Twice { member: "a register" }));
    let incomplete = with("pcrs", pcr_map(&[(0, 48), (2, 48)]));
    assert_eq!(incomplete, Err(ParseError::Missing { member: "register 0, 1 or 2" }));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Document::parse(&bytes);
        let _ = Document::parse(&framed(&bytes));
    }

    #[test]
    fn damaged_documents_are_read_the_same_or_not_at_all(at in 0_usize..4096, to in any::<u8>()) {
        let mut bytes = framed(&payload(|_| {}));
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(document) = Document::parse(&bytes) {
            // The framing has one form, so equal parts mean equal bytes.
            let again = outer(vec![
                Value::Bytes(PROTECTED.to_vec()),
                Value::Map(Vec::new()),
                Value::Bytes(document.payload.clone()),
                Value::Bytes(document.signature.clone()),
            ]);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn values_come_back(ms in 1_u64.., data in proptest::collection::vec(any::<u8>(), 0..=1024), pcr in any::<[u8; 32]>()) {
        let pcr: Pcr = [&pcr[..], &pcr[..16]].concat().try_into().unwrap();
        let value = Value::Map((0..3).map(|i| (Value::from(i), Value::Bytes(pcr.to_vec()))).collect());
        let bytes = framed(&payload(|members| {
            members[2].1 = Value::from(ms);
            members[3].1 = value;
            members[7].1 = Value::Bytes(data.clone());
        }));
        let document = Document::parse(&bytes).unwrap();
        prop_assert_eq!((document.timestamp_ms, document.user_data, document.pcrs[&1]), (ms, Some(data), pcr));
    }
}

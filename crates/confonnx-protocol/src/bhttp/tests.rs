use std::io::Cursor;

use bhttp::{Message, Mode, StatusCode};
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;

use super::*;
use crate::padding;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    str::from_utf8(fields.get(name).unwrap()).unwrap()
}

fn encoded(head: &RequestHead, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_request(head, &[body], &mut out).unwrap();
    out
}

/// RFC 9292, section 5.1, figure 8.
const RFC_REQUEST: &str = "
    00034745 54056874 74707300 0a2f6865 6c6c6f2e 74787440 6c0a7573 65722d61
    67656e74 34637572 6c2f372e 31362e33 206c6962 6375726c 2f372e31 362e3320
    4f70656e 53534c2f 302e392e 376c207a 6c69622f 312e322e 3304686f 73740f77
    77772e65 78616d70 6c652e63 6f6d0f61 63636570 742d6c61 6e677561 67650665
    6e2c206d 690000";
/// Figure 9: the same, of indeterminate length and padded.
const RFC_REQUEST_INDETERMINATE: &str = "
    02034745 54056874 74707300 0a2f6865 6c6c6f2e 7478740a 75736572 2d616765
    6e743463 75726c2f 372e3136 2e33206c 69626375 726c2f37 2e31362e 33204f70
    656e5353 4c2f302e 392e376c 207a6c69 622f312e 322e3304 686f7374 0f777777
    2e657861 6d706c65 2e636f6d 0f616363 6570742d 6c616e67 75616765 06656e2c
    206d6900 00000000 00000000 00000000";
/// Section 5.2, figure 11: with informational responses.
const RFC_RESPONSE: &str = "
    03406607 72756e6e 696e670a 22736c65 65702031 35220040 67046c69 6e6b233c
    2f737479 6c652e63 73733e3b 2072656c 3d707265 6c6f6164 3b206173 3d737479
    6c65046c 696e6b24 3c2f7363 72697074 2e6a733e 3b207265 6c3d7072 656c6f61
    643b2061 733d7363 72697074 0040c804 64617465 1d4d6f6e 2c203237 204a756c
    20323030 39203132 3a32383a 35332047 4d540673 65727665 72064170 61636865
    0d6c6173 742d6d6f 64696669 65641d57 65642c20 3232204a 756c2032 30303920
    31393a31 353a3536 20474d54 04657461 67142233 34616133 38372d64 2d313536
    38656230 30220d61 63636570 742d7261 6e676573 05627974 65730e63 6f6e7465
    6e742d6c 656e6774 68023531 04766172 790f4163 63657074 2d456e63 6f64696e
    670c636f 6e74656e 742d7479 70650a74 6578742f 706c6169 6e003348 656c6c6f
    20576f72 6c642120 4d792063 6f6e7465 6e742069 6e636c75 64657320 61207472
    61696c69 6e672043 524c462e 0d0a0000";
/// Figure 13: trailers.
const RFC_TRAILERS: &str = "
    0140c800 1d546869 7320636f 6e74656e 7420636f 6e746169 6e732043 524c462e
    0d0a0d07 74726169 6c657204 74657874";

fn rfc_head() -> RequestHead {
    let mut head = RequestHead::new("GET", "/hello.txt");
    head.fields.push("user-agent", "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3");
    head.fields.push("host", "www.example.com");
    head.fields.push("accept-language", "en, mi");
    head
}

#[test]
fn rfc_requests() {
    assert_eq!(encoded(&rfc_head(), b""), hex(RFC_REQUEST));
    for example in [RFC_REQUEST, RFC_REQUEST_INDETERMINATE] {
        let message = hex(example);
        let (head, body) = decode_request(&message).unwrap();
        assert_eq!(head, rfc_head());
        assert!(body.bytes(&message).is_empty());
    }
}

#[test]
fn rfc_responses() {
    let message = hex(RFC_RESPONSE);
    let (head, body) = decode_response(&message).unwrap();
    assert_eq!((head.status, head.fields.len()), (200, 8));
    assert_eq!(text(&head.fields, "etag"), "\"34aa387-d-1568eb00\"");
    assert_eq!(head.fields.get("running"), None);
    assert_eq!(body.bytes(&message), b"Hello World! My content includes a trailing CRLF.\r\n");

    let message = hex(RFC_TRAILERS);
    let (head, body) = decode_response(&message).unwrap();
    assert!(head.fields.is_empty());
    assert_eq!(body.bytes(&message), b"This content contains CRLF.\r\n");
}

#[test]
fn only_empty_ends_may_be_left_out() {
    for (example, zeros) in [(RFC_REQUEST, 2), (RFC_REQUEST_INDETERMINATE, 12)] {
        let message = hex(example);
        for len in 0..message.len() {
            let decoded = decode_request(&message[..len]);
            if len >= message.len() - zeros {
                assert_eq!(decoded.unwrap().0, rfc_head());
            } else {
                assert!(matches!(decoded, Err(BhttpError::Truncated { .. })), "{len}");
            }
        }
    }
    // The long response may lack its last zero; cut right after its header, it is one with empty content.
    let message = hex(RFC_RESPONSE);
    let after_header = message.len() - b"3Hello World! My content includes a trailing CRLF.\r\n\0\0".len();
    for len in 0..message.len() {
        let whole = len == after_header || len == message.len() - 1;
        assert_eq!(decode_response(&message[..len]).is_ok(), whole, "{len}");
    }
}

#[test]
fn padding_must_be_zero() {
    let mut message = encoded(&rfc_head(), b"body");
    let end = message.len();
    padding::pad(&mut message);
    assert_eq!(message.len(), 512);
    assert_eq!(decode_request(&message).unwrap().0, rfc_head());
    message[500] = 1;
    assert_eq!(decode_request(&message).unwrap_err(), BhttpError::Padding { at: 500 });
    message.truncate(end);
    message.push(1);
    assert_eq!(decode_request(&message).unwrap_err(), BhttpError::Padding { at: end });
}

#[test]
fn encoding_allocates_once_with_room_for_padding_and_a_tag() {
    let mut out = Vec::new();
    encode_request(&rfc_head(), &[&[1; 3000], &[2; 4000]], &mut out).unwrap();
    let (capacity, address) = (out.capacity(), out.as_ptr());
    padding::pad(&mut out);
    out.extend([0; 16]);
    assert_eq!((out.len(), out.capacity(), out.as_ptr()), (capacity, capacity, address));
}

#[test]
fn lengths_at_the_edges_of_each_integer_size() {
    for len in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x1_0000] {
        let content = vec![7; len];
        let message = encoded(&rfc_head(), &content);
        assert_eq!(peer_reads(&message).content(), content);
        assert_eq!(decode_request(&message).unwrap().1.bytes(&message), content);
    }
    // Integers need not be as short as they can.
    let message = hex("00 4003 474554 80000005 6874747073 00 c000000000000001 2f 00");
    assert_eq!(decode_request(&message).unwrap().0, RequestHead::new("GET", "/"));
}

#[test]
fn chunks_are_joined_only_if_there_are_several() {
    let message = |chunks: &[u8]| [&hex("03 40c8 00")[..], chunks].concat();
    for (chunks, expected, joined) in [
        (&[0, 0][..], &b""[..], false),
        (&[2, b'a', b'b', 0, 0], b"ab", false),
        (&[1, b'a', 2, b'b', b'c', 0, 0], b"abc", true),
        // Trailers may be left out after the content's terminator.
        (&[1, b'a', 1, b'b', 0], b"ab", true),
    ] {
        let message = message(chunks);
        let (_, body) = decode_response(&message).unwrap();
        assert_eq!(body.bytes(&message), expected);
        assert_eq!(matches!(body, Body::Owned(_)), joined);
    }
    let truncated = BhttpError::Truncated { part: Part::Content };
    assert_eq!(decode_response(&message(&[1, b'a'])).unwrap_err(), truncated);
    assert_eq!(decode_response(&message(&[9, b'a'])).unwrap_err(), truncated);
}

#[test]
fn framing_says_request_or_response() {
    let expected = "request";
    assert_eq!(decode_request(&hex(RFC_RESPONSE)).unwrap_err(), BhttpError::Framing { expected, found: 3 });
    assert_eq!(decode_request(&[4]).unwrap_err(), BhttpError::Framing { expected, found: 4 });
    let expected = "response";
    assert_eq!(decode_response(&hex(RFC_REQUEST)).unwrap_err(), BhttpError::Framing { expected, found: 0 });
    assert_eq!(decode_response(&[]).unwrap_err(), BhttpError::Truncated { part: Part::Framing });
}

#[test]
fn status_is_final_or_informational() {
    for (bytes, found) in [("01 4063", 99), ("01 4258", 600), ("01 ffffffffffffffff", (1 << 62) - 1)] {
        assert_eq!(decode_response(&hex(bytes)).unwrap_err(), BhttpError::Status { found });
    }
    let interim = |n: usize| [&[1][..], &hex("4066 00").repeat(n), &hex("40c8 00")].concat();
    assert_eq!(decode_response(&interim(MAX_INFORMATIONAL)).unwrap().0.status, 200);
    assert_eq!(
        decode_response(&interim(MAX_INFORMATIONAL + 1)).unwrap_err(),
        BhttpError::TooManyInformational
    );
    assert_eq!(
        encode_response(&ResponseHead::new(100), &[], &mut Vec::new()),
        Err(BhttpError::Status { found: 100 })
    );
}

/// Each field in turn is written into a message by hand and handed to the encoder.
#[test]
fn fields_that_could_split_a_message_are_refused() {
    let refused = |name: &[u8], value: &[u8], expected: BhttpError| {
        let line = [&[name.len() as u8], name, &[value.len() as u8], value].concat();
        let message = [&hex("01 40c8")[..], &[line.len() as u8], &line].concat();
        assert_eq!(decode_response(&message).unwrap_err(), expected);
        if let Ok(name) = str::from_utf8(name) {
            let mut head = ResponseHead::new(200);
            head.fields.push(name, value);
            assert_eq!(encode_response(&head, &[], &mut Vec::new()), Err(expected));
        }
    };
    for name in [&b""[..], b"Upper", b":status", b"sp ace", b"nul\0", b"\xff\xfe", "ä".as_bytes()] {
        refused(name, b"x", BhttpError::FieldName { index: 0 });
    }
    for value in [&b"a\rb"[..], b"a\nb", b"a\0b"] {
        refused(b"name", value, BhttpError::FieldValue { name: "name".into() });
    }
}

#[test]
fn control_data_is_checked() {
    let message = |parts: [&[u8]; 4]| {
        let parts = parts.map(|part| [&[part.len() as u8], part].concat()).concat();
        [&[0], &parts[..], &[0]].concat()
    };
    assert!(decode_request(&message([b"GET", b"https", b"", b"/"])).is_ok());
    for (parts, part) in [
        ([&b""[..], b"https", b"", b"/"], Part::Method),
        ([b"GE T", b"https", b"", b"/"], Part::Method),
        ([b"\xff", b"https", b"", b"/"], Part::Method),
        ([b"GET", b"ht\ntp", b"", b"/"], Part::Scheme),
        ([b"GET", b"https", b"a b", b"/"], Part::Authority),
        ([b"GET", b"https", b"", b"/\xff"], Part::Path),
        ([b"GET", b"https", b"", b"/a\r\nb"], Part::Path),
        ([b"GET", b"https", b"", "/ä".as_bytes()], Part::Path),
    ] {
        assert_eq!(decode_request(&message(parts)).unwrap_err(), BhttpError::Control { part }, "{parts:?}");
    }
    let head = RequestHead::new("GET", "/a b");
    assert_eq!(encode_request(&head, &[], &mut Vec::new()), Err(BhttpError::Control { part: Part::Path }));
}

#[test]
fn heads_are_bounded() {
    let fields = |n: usize, len: usize| {
        let mut head = RequestHead::new("GET", "/");
        (0..n).for_each(|_| head.fields.push("n", vec![b'v'; len]));
        head
    };
    assert!(decode_request(&encoded(&fields(100, 1), b"")).is_ok());
    let encode = |head: &RequestHead| encode_request(head, &[], &mut Vec::new());
    assert_eq!(encode(&fields(101, 1)), Err(BhttpError::TooManyFields));
    assert_eq!(encode(&fields(1, MAX_HEAD)), Err(BhttpError::HeadTooLarge));

    let many =
        [&hex("00 03 474554 05 6874747073 00 01 2f")[..], &hex("4194"), &hex("01 6e 01 76").repeat(101)];
    assert_eq!(decode_request(&many.concat()).unwrap_err(), BhttpError::TooManyFields);
    let many = [&hex("02 03 474554 05 6874747073 00 01 2f")[..], &hex("01 6e 01 76").repeat(101), &[0]];
    assert_eq!(decode_request(&many.concat()).unwrap_err(), BhttpError::TooManyFields);
    // Refused by its length alone, before those bytes come.
    for huge in ["00 03 474554 05 6874747073 00 80020000", "00 ffffffffffffffff"] {
        assert_eq!(decode_request(&hex(huge)).unwrap_err(), BhttpError::HeadTooLarge);
    }
}

#[test]
fn debug_shows_no_values() {
    let mut head = RequestHead::new("GET", "/");
    head.fields.push("authorization", "Bearer secret");
    let (read, body) = decode_request(&encoded(&head, b"secret")).unwrap();
    assert!(!format!("{head:?} {read:?} {body:?}").contains("ecret"));
}

/// The independent implementation's view of a message.
fn peer_reads(message: &[u8]) -> Message {
    Message::read_bhttp(&mut Cursor::new(message)).unwrap()
}

fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let value = vec(any::<u8>().prop_filter("allowed", |b| !matches!(b, 0 | b'\r' | b'\n')), 0..100);
    ("[a-z0-9!#$%&'*+.^_`|~-]{1,70}", value)
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::KnownLength), Just(Mode::IndeterminateLength)]
}

proptest! {
    #[test]
    fn the_peer_reads_our_requests(
        (method, authority, path) in ("[A-Z]{1,9}", "[a-z.]{0,20}", "/[!-~]{0,99}"),
        fields in vec(field(), 0..9),
        parts in vec(vec(any::<u8>(), 0..200), 0..4),
        pad in any::<bool>(),
    ) {
        let mut head = RequestHead::new(method, path);
        head.authority = authority;
        fields.iter().for_each(|(name, value)| head.fields.push(name, &value[..]));
        let mut message = Vec::new();
        encode_request(&head, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut message).unwrap();
        let len = message.len();
        if pad {
            padding::pad(&mut message);
        }
        let body_len = parts.concat().len();
        let start = request_body_offset(&head, body_len);
        prop_assert_eq!(announced_len(&message), Some(len));
        prop_assert_eq!(announced_len(&message[..start]), Some(len));
        prop_assert_eq!(announced_len(&message[..start - 1]), None);
        let peer = peer_reads(&message);
        prop_assert_eq!(peer.control().method(), Some(head.method.as_bytes()));
        prop_assert_eq!(peer.control().scheme(), Some(&b"https"[..]));
        prop_assert_eq!(peer.control().authority().unwrap_or_default(), head.authority.as_bytes());
        prop_assert_eq!(peer.control().path(), Some(head.path.as_bytes()));
        let theirs: Vec<_> = peer.header().iter().map(|f| (f.name(), f.value())).collect();
        prop_assert_eq!(theirs, head.fields.iter().map(|(n, v)| (n.as_bytes(), v)).collect::<Vec<_>>());
        prop_assert_eq!(peer.content(), parts.concat());

        let (ours, body) = decode_request(&message).unwrap();
        prop_assert_eq!(ours, head);
        prop_assert_eq!(body.bytes(&message), parts.concat());
    }

    #[test]
    fn we_read_the_peers_requests(
        mode in mode(),
        fields in vec(field(), 0..9),
        trailers in vec(field(), 0..3),
        content in vec(any::<u8>(), 0..20_000),
    ) {
        let mut peer = Message::request(b"POST".into(), b"https".into(), b"host".into(), b"/v2".into());
        fields.iter().for_each(|(name, value)| peer.put_header(name.as_bytes(), &value[..]));
        trailers.iter().for_each(|(name, value)| peer.put_trailer(name.as_bytes(), &value[..]));
        peer.write_content(&content);
        let mut message = Vec::new();
        peer.write_bhttp(mode, &mut message).unwrap();
        padding::pad(&mut message);

        let (head, body) = decode_request(&message).unwrap();
        prop_assert_eq!((&head.method[..], &head.authority[..], &head.path[..]), ("POST", "host", "/v2"));
        prop_assert!(head.fields.iter().eq(fields.iter().map(|(name, value)| (name.as_str(), &value[..]))));
        prop_assert_eq!(body.bytes(&message), content);
    }

    #[test]
    fn responses_both_ways(mode in mode(), status in 200..600_u16, field in field(), content in vec(any::<u8>(), 0..2000)) {
        let mut peer = Message::response(StatusCode::try_from(status).unwrap());
        peer.put_header(field.0.as_bytes(), &field.1[..]);
        peer.write_content(&content);
        let mut message = Vec::new();
        peer.write_bhttp(mode, &mut message).unwrap();
        let known = matches!(mode, Mode::KnownLength).then_some(message.len());
        prop_assert_eq!(announced_len(&message), known);
        let (head, body) = decode_response(&message).unwrap();
        prop_assert_eq!((head.status, head.fields.get(&field.0)), (status, Some(&field.1[..])));
        prop_assert_eq!(body.bytes(&message), &content[..]);

        let mut ours = Vec::new();
        encode_response(&head, &[&content], &mut ours).unwrap();
        let peer = peer_reads(&ours);
        prop_assert_eq!(u16::from(peer.control().status().unwrap()), status);
        prop_assert_eq!(peer.header().get(field.0.as_bytes()), Some(&field.1[..]));
        prop_assert_eq!(peer.content(), content);
    }

    #[test]
    fn any_bytes_give_a_message_or_an_error(mut bytes in vec(any::<u8>(), 1..300), framing in 0..4_u8) {
        bytes[0] = framing;
        let _ = decode_request(&bytes);
        let _ = decode_response(&bytes);
    }
}

/// `vectors/binary-http/*/case.json`
#[derive(Deserialize)]
struct Case {
    kind: String,
    message: String,
    expected: String,
}

#[test]
fn vectors_are_accepted_or_refused_as_they_say() {
    let mut seen = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/binary-http")).unwrap()
    {
        let path = entry.unwrap().path().join("case.json");
        let case: Case = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let message = hex(&case.message);
        let result = match case.kind.as_str() {
            "request" => decode_request(&message).map(|_| ()),
            "response" => decode_response(&message).map(|_| ()),
            kind => panic!("{kind}"),
        };
        let found = result.as_ref().map_or_else(BhttpError::reason, |()| "accepted");
        assert_eq!(found, case.expected, "{}: {result:?}", path.display());
        seen.insert(found);
    }
    // There was one case for each reason.
    assert_eq!(seen.len(), 11, "{seen:?}");
}

#[test]
fn a_response_that_is_written_piece_by_piece_reads_as_one() {
    let mut head = ResponseHead::new(200);
    head.fields.push("content-type", "text/event-stream");
    let (mut message, mut piece) = (Vec::new(), Vec::new());
    let mut writer = ResponseWriter::start(&head, &mut message).unwrap();
    for content in ["data: 1\n\n", "", "data: two\n\n"] {
        // Each piece goes into a buffer of its own, as for sealing.
        piece.clear();
        writer.content(content.as_bytes(), &mut piece);
        message.extend_from_slice(&piece);
    }
    let theirs = |message: &[u8]| Message::read_bhttp(&mut Cursor::new(message));
    let mut unfinished = message.clone();
    unfinished.truncate(message.len() - 1);
    assert!(decode_response(&unfinished).is_err());
    writer.finish(&mut message);
    assert_eq!(message.len(), padding::padded_len(message.len()));
    let (read, body) = decode_response(&message).unwrap();
    assert_eq!((read, body.bytes(&message)), (head, &b"data: 1\n\ndata: two\n\n"[..]));
    let read = theirs(&message).unwrap();
    assert_eq!(read.content(), b"data: 1\n\ndata: two\n\n");
    let not_final = ResponseHead::new(100);
    assert!(ResponseWriter::start(&not_final, &mut Vec::new()).is_err());
}

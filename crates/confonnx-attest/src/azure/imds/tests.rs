use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::*;

/// Answers one request with `answer`, and gives what was asked.
pub(crate) fn service(answer: Vec<u8>) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        while !request.ends_with(b"}") {
            let read = stream.read(&mut chunk).unwrap();
            assert!(read > 0, "the request ends early");
            request.extend_from_slice(&chunk[..read]);
        }
        // An error means that the client read enough and closed the connection.
        let _ = stream.write_all(&answer);
        String::from_utf8(request).unwrap()
    });
    (address, thread)
}

pub(crate) fn ok(quote: &[u8]) -> Vec<u8> {
    let body = format!("{{\"quote\":\"{}\"}}", Base64UrlUnpadded::encode_string(quote));
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").into_bytes()
}

#[test]
fn it_asks_with_the_report_and_takes_the_quote() {
    let (address, asked) = service(ok(b"a quote"));
    assert_eq!(td_quote(address, &[1, 2, 255]).unwrap(), b"a quote");
    let expected = "POST /acc/tdquote HTTP/1.0\r\nhost: 127.0.0.1\r\nmetadata: true\r\n\
                    content-type: application/json\r\ncontent-length: 17\r\n\r\n{\"report\":\"AQL_\"}";
    assert_eq!(asked.join().unwrap(), expected);
}

#[test]
fn padding_is_accepted() {
    let answer = b"HTTP/1.1 200 OK\r\n\r\n{\"quote\":\"AQ==\",\"more\":1}".to_vec();
    assert_eq!(td_quote(service(answer).0, &[]).unwrap(), [1]);
}

#[test]
fn every_other_answer_says_what_was_wrong() {
    let error = |answer: &[u8]| td_quote(service(answer.to_vec()).0, &[]).unwrap_err();
    let status = error(b"HTTP/1.1 429 Too Many Requests\r\n\r\n{}");
    assert!(matches!(&status, ImdsError::Status { found } if found.contains("429")), "{status}");
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{\"quote\":1}",
        b"HTTP/1.1 200 OK\r\n\r\n{\"quote\":\"*\"}",
        b"HTTP/1.1 200 OK\r\n\r\n\xff",
        // The body is part of a JSON object, as if the service went away.
        b"HTTP/1.1 200 OK\r\n\r\n{\"quote\":\"AQ",
    ] {
        assert!(matches!(error(answer), ImdsError::Malformed), "{}", String::from_utf8_lossy(answer));
    }
    assert!(matches!(error(&ok(&vec![0; MAX_ANSWER])), ImdsError::TooLong));
}

#[test]
fn a_service_that_is_not_there_is_said() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = td_quote(address, &[]).unwrap_err();
    assert!(matches!(error, ImdsError::Io { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()));
}

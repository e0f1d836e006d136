//! The HTTP request that opens a WebSocket, and its answer: RFC 6455, section 4.2. Bytes to bytes; nothing is kept.
//!
//! The path does not matter. Extensions are never agreed to, so their bits stay zero in every frame.

use httparse::{EMPTY_HEADER, Error, Header, Request, Status};
use sha1_smol::Sha1;

use super::Fault;

/// Bytes of a request up to and including its empty line. Mosquitto's `packet_buffer_size`: browsers with cookies stay below.
pub const HEAD_MAX: usize = 4096;
/// Headers in them: several times what browsers send.
const HEADERS_MAX: usize = 64;

/// Sub-protocols, the wanted one first. The other is what clients of MQTT 3.1 offer.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// RFC 6455, section 1.3
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub const BAD_REQUEST: u16 = 400;
const UPGRADE_REQUIRED: u16 = 426;
const HEAD_TOO_LARGE: u16 = 431;

/// Looks at the beginning of a connection, at most `HEAD_MAX` bytes: once the request is whole its length and the answer
/// that accepts it.
pub fn accept(head: &[u8]) -> Result<Option<(usize, Vec<u8>)>, Fault> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(len)) => Ok(Some((len, answer(&request)?))),
        Ok(Status::Partial) if head.len() < HEAD_MAX => Ok(None),
        Ok(Status::Partial) | Err(Error::TooManyHeaders) => Err(Fault {
            code: HEAD_TOO_LARGE,
            what: "the request has more than 4096 bytes or 64 headers; send fewer, cookies for example",
        }),
        Err(Error::Version) => Err(NOT_HTTP_1_1),
        Err(_) => Err(not_http(head.first())),
    }
}

/// What a client is told that may not in.
pub fn refusal(fault: Fault) -> Vec<u8> {
    let (reason, more) = match fault.code {
        UPGRADE_REQUIRED => {
            ("Upgrade Required", "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
        }
        HEAD_TOO_LARGE => ("Request Header Fields Too Large", "Connection: close\r\n"),
        _ => ("Bad Request", "Connection: close\r\n"),
    };
    // The first letter is ASCII: the texts are all here.
    let (first, rest) = fault.what.split_at(1);
    let text = format!("{}{rest}.\n", first.to_ascii_uppercase());
    let (code, len) = (fault.code, text.len());
    format!("HTTP/1.1 {code} {reason}\r\n{more}Content-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{text}")
        .into_bytes()
}

const fn bad(what: &'static str) -> Fault {
    Fault { code: BAD_REQUEST, what }
}

const NOT_HTTP_1_1: Fault = bad("a WebSocket begins with a request of HTTP/1.1; use a client that speaks it");

fn not_http(first_byte: Option<&u8>) -> Fault {
    match first_byte {
        Some(0x10) => {
            bad("MQTT came without WebSocket, which is all that this port speaks; use another port, or WebSocket")
        }
        Some(0x16) => bad("TLS came, and this port has none; use ws:// instead of wss://"),
        _ => bad("what came is no HTTP request; use an MQTT client that speaks WebSocket"),
    }
}

/// The answer to a request that obeys all rules; otherwise what it breaks.
fn answer(request: &Request) -> Result<Vec<u8>, Fault> {
    let headers: &[Header] = request.headers;
    if request.version != Some(1) {
        return Err(NOT_HTTP_1_1);
    }
    if request.method != Some("GET") {
        return Err(bad("a WebSocket begins with GET; use an MQTT client that speaks WebSocket"));
    }
    if values(headers, "Host").next().is_none() {
        return Err(bad("the request has no Host header; HTTP/1.1 demands one"));
    }
    if !has_token(headers, "Upgrade", "websocket") {
        return Err(bad(
            "this port speaks MQTT over WebSocket only, and the request has no 'Upgrade: websocket'; use such a client, \
             and let proxies pass that header on",
        ));
    }
    if !has_token(headers, "Connection", "upgrade") {
        return Err(bad("the request has no 'Connection: Upgrade'; let proxies in between pass it on"));
    }
    if !has_token(headers, "Sec-WebSocket-Version", "13") {
        return Err(Fault {
            code: UPGRADE_REQUIRED,
            what: "the request has no 'Sec-WebSocket-Version: 13'; use a client that speaks this version",
        });
    }
    let mut keys = values(headers, "Sec-WebSocket-Key");
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => key,
        _ => return Err(bad("the request needs one Sec-WebSocket-Key, and that is 16 bytes as 24 letters of Base64")),
    };
    // [MQTT-6.0.0-4]
    let offered = |name: &&&str| tokens(headers, "Sec-WebSocket-Protocol").any(|token| token == name.as_bytes());
    let Some(protocol) = PROTOCOLS.iter().find(offered) else {
        return Err(bad("the client must offer the sub-protocol mqtt; set its Sec-WebSocket-Protocol to that"));
    };
    let accept = accept_key(key);
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    .into_bytes())
}

fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let named = move |header: &&Header| header.name.eq_ignore_ascii_case(name);
    headers.iter().filter(named).map(|header| header.value.trim_ascii())
}

/// The members of a list that may be spread over several headers.
fn tokens<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    values(headers, name).flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

fn has_token(headers: &[Header], name: &str, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// 16 bytes in Base64.
fn is_key(key: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_letter)
}

fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::from(key);
    hash.update(KEY_SUFFIX);
    base64(&hash.digest().bytes())
}

/// RFC 4648, section 4. Only this way and only here, which is less than a crate's interface.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let sextet = word >> (18 - 6 * place) & 63;
            out.push(if place <= chunk.len() { LETTERS[sextet as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, with MQTT for its sub-protocols.
    const LINES: [&str; 8] = [
        "GET /chat HTTP/1.1",
        "Host: server.example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Origin: http://example.com",
        "Sec-WebSocket-Protocol: chat, mqtt",
        "Sec-WebSocket-Version: 13",
    ];

    fn request(lines: &[&str]) -> Vec<u8> {
        (lines.join("\r\n") + "\r\n\r\n").into_bytes()
    }

    /// The example with one line replaced by some or none.
    fn with(index: usize, line: &str) -> Vec<u8> {
        let mut lines = LINES.to_vec();
        lines[index] = line;
        lines.retain(|line| !line.is_empty());
        request(&lines)
    }

    fn answer_to(head: &[u8]) -> String {
        let (len, answer) = accept(head).unwrap().unwrap();
        assert_eq!(len, head.len());
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let answer = answer_to(&request(&LINES));
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
    }

    #[test]
    fn names_and_lists_are_read_as_http_has_them() {
        for (index, line) in [
            (2, "UPGRADE:   h2c ,  WebSocket"),
            (3, "connection: keep-alive, upgrade"),
            (3, "Connection: keep-alive\r\nConnection: Upgrade"),
            (6, "sec-websocket-protocol: chat\r\nSec-WebSocket-Protocol: mqtt"),
            (6, "Sec-WebSocket-Protocol: mqttv3.1,mqtt"),
            (0, "GET / HTTP/1.1"),
            (5, "X-Octets: \u{e9}"),
        ] {
            assert!(answer_to(&with(index, line)).contains("Protocol: mqtt\r\n"), "{line}");
        }
        let old = answer_to(&with(6, "Sec-WebSocket-Protocol: mqttv3.1"));
        assert!(old.contains("Sec-WebSocket-Protocol: mqttv3.1\r\n"), "{old}");
    }

    #[test]
    fn each_broken_rule_is_named() {
        for (index, line, code, named) in [
            (0, "POST /chat HTTP/1.1", 400, "GET"),
            (0, "GET /chat HTTP/1.0", 400, "HTTP/1.1"),
            (0, "GET /chat HTTP/2.0", 400, "HTTP/1.1"),
            (0, "GET", 400, "no HTTP request"),
            (1, "", 400, "Host"),
            (2, "", 400, "'Upgrade: websocket'"),
            (2, "Upgrade: websockets", 400, "'Upgrade: websocket'"),
            (3, "", 400, "'Connection: Upgrade'"),
            (3, "Connection: close", 400, "'Connection: Upgrade'"),
            (4, "", 400, "Sec-WebSocket-Key"),
            (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=", 400, "Sec-WebSocket-Key"),
            (4, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA", 400, "Sec-WebSocket-Key"),
            (4, "Sec-WebSocket-Key: dGhlIHNhb!BsZSBub25jZQ==", 400, "Sec-WebSocket-Key"),
            (5, LINES[4], 400, "one Sec-WebSocket-Key"),
            (6, "", 400, "mqtt"),
            (6, "Sec-WebSocket-Protocol: MQTT, mqtt2", 400, "mqtt"),
            (7, "", 426, "13"),
            (7, "Sec-WebSocket-Version: 8", 426, "13"),
        ] {
            let fault = accept(&with(index, line)).unwrap_err();
            assert_eq!(fault.code, code, "{line}: {fault}");
            assert!(fault.what.contains(named), "{line}: {fault}");
        }
    }

    #[test]
    fn other_protocols_are_recognised() {
        for (bytes, named) in
            [(&b"\x10\x0e\0\x04MQTT"[..], "without WebSocket"), (b"\x16\x03\x01", "wss://"), (b"\0", "no HTTP request")]
        {
            let fault = accept(bytes).unwrap_err();
            assert!(fault.code == 400 && fault.what.contains(named), "{fault}");
        }
    }

    #[test]
    fn a_head_of_4096_bytes_is_read_and_a_longer_one_is_not() {
        let room = HEAD_MAX - request(&LINES).len() + LINES[5].len();
        let line = |len: usize| format!("Cookie: {}", "x".repeat(len - 8));
        answer_to(&with(5, &line(room)));
        let longer = with(5, &line(room + 1));
        assert_eq!(accept(&longer[..HEAD_MAX - 1]), Ok(None));
        assert_eq!(accept(&longer[..HEAD_MAX]).unwrap_err().code, 431);
        let many = with(5, &["A: b"; HEADERS_MAX - 5].join("\r\n"));
        assert_eq!(accept(&many).unwrap_err().code, 431);
    }

    #[test]
    fn every_shorter_piece_is_waited_on() {
        let head = request(&LINES);
        for len in 0..head.len() {
            assert_eq!(accept(&head[..len]), Ok(None), "{len}");
        }
        let (len, _) = accept(&[&head[..], b"\x82\x80"].concat()).unwrap().unwrap();
        assert_eq!(len, head.len());
    }

    #[test]
    fn a_refusal_is_a_whole_http_answer() {
        for (code, first) in [(400, "400 Bad"), (426, "426 Upgrade"), (431, "431 Request Header")] {
            let text = String::from_utf8(refusal(Fault { code, what: "the reason; do that" })).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {first}")), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, "The reason; do that.\n");
            assert!(head.ends_with("\r\nContent-Length: 21"), "{text}");
            assert_eq!(head.contains("Sec-WebSocket-Version: 13"), code == 426);
        }
    }

    #[test]
    fn base64_of_every_length() {
        for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}

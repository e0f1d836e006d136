//! What the fuzz target of the WebSocket codec does with its bytes.

use midge::net::websocket::{Ending, WebSocket};

use super::bodies::Source;

/// A client's WebSocket in arbitrary pieces, its messages sent back in short writes: what is read is what a plain reading of
/// the whole stream finds, what is written are whole frames that hold the same.
pub fn websocket(data: &[u8]) {
    let mut source = Source(data);
    let (choice, cuts) = (source.byte(), source.take(8).to_vec());
    let has_request = choice & 7 != 0;
    let mut stream = if has_request { WEBSOCKET_REQUEST.to_vec() } else { Vec::new() };
    match choice & 8 {
        0 => stream.extend_from_slice(source.0),
        _ => {
            while !source.0.is_empty() {
                push_frame(&mut source, &mut stream);
            }
        }
    }
    let expected = plain_frames(stream.get(WEBSOCKET_REQUEST.len()..).unwrap_or_default());
    let (mut websocket, mut seen, mut ended) = (WebSocket::default(), Vec::new(), None);
    let (mut wire, mut sent) = (Vec::new(), 0);
    let mut sizes = cuts.iter().map(|&size| 1 + usize::from(size)).cycle();
    let mut rest = &mut stream[..];
    while !rest.is_empty() && ended.is_none() {
        let (piece, more) = rest.split_at_mut(sizes.next().unwrap_or(usize::MAX).min(rest.len()));
        let (count, ending) = websocket.receive(piece);
        assert!(count <= piece.len());
        seen.extend_from_slice(&piece[..count]);
        ended = ending;
        rest = more;
        sent += write_some(&mut websocket, &seen[sent..], sizes.next().unwrap_or(1) - 1, &mut wire);
    }
    if has_request {
        let code = ended.map(|ending| match ending {
            Ending::Closed => 0,
            Ending::Broken(fault) => fault.code,
        });
        assert_eq!(code, expected.1);
        assert!(seen == expected.0, "{} bytes differ from {}", seen.len(), expected.0.len());
    }
    while !websocket.is_closed() && sent < seen.len() || websocket.has_output() {
        sent += write_some(&mut websocket, &seen[sent..], 100, &mut wire);
    }
    let head = wire.windows(4).position(|end| end == b"\r\n\r\n").map_or(wire.len(), |at| at + 4);
    if has_request {
        assert!(binary_payload(&wire[head..]) == seen[..sent]);
    }
}

const WEBSOCKET_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A frame that is often right: type, form of its length, mask and payload are what the source says.
fn push_frame(source: &mut Source, out: &mut Vec<u8>) {
    let first = [0x82, 0x82, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x81, 0x09, 0xC2, 0x83];
    out.push(first[source.byte().trailing_zeros() as usize % first.len()]);
    let payload = match source.byte() % 8 {
        0 => Vec::new(),
        1 => vec![b'x'; 400],
        2 => vec![b'y'; 70_000],
        count => source.take(count.into()).to_vec(),
    };
    let masked = if source.byte() == 0 { 0 } else { 0x80 };
    match (payload.len(), source.byte() % 8) {
        (len @ 0..=125, 1..) => out.push(masked | len as u8),
        (len @ 0..=0xFFFF, 1..) => out.extend([&[masked | 126][..], &(len as u16).to_be_bytes()].concat()),
        (len, _) => out.extend([&[masked | 127][..], &(len as u64).to_be_bytes()].concat()),
    }
    out.extend_from_slice(source.take(4));
    out.extend(payload);
}

/// The payload of all frames that a client may send, and how they end: 0 for a close frame, or the code of what is wrong.
fn plain_frames(mut rest: &[u8]) -> (Vec<u8>, Option<u16>) {
    let (mut out, mut is_open) = (Vec::new(), false);
    while let Some(&first) = rest.first() {
        let (opcode, is_final) = (first & 15, first & 0x80 != 0);
        match (first & 0x70, opcode, is_final, is_open) {
            (0, 1, ..) => return (out, Some(1003)),
            (0, 0, _, true) | (0, 2, _, false) => is_open = !is_final,
            (0, 8..=10, true, _) => {}
            _ => return (out, Some(1002)),
        }
        let Some(&second) = rest.get(1) else { break };
        if second & 0x80 == 0 || opcode >= 8 && second & 127 > 125 {
            return (out, Some(1002));
        }
        let from = [2, 4, 10][usize::from(second & 127).saturating_sub(125)];
        let Some(mask) = rest.get(from..from + 4) else { break };
        let len = match from {
            2 => u64::from(second & 127),
            _ => rest[2..from].iter().fold(0, |len, &byte| len * 256 + u64::from(byte)),
        };
        if len >= 1 << 63 {
            return (out, Some(1002));
        }
        let there = &rest[from + 4..];
        let payload = &there[..there.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
        if opcode < 8 {
            out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        }
        if payload.len() as u64 != len {
            break;
        }
        if opcode == 8 {
            return (out, Some(0));
        }
        rest = &there[payload.len()..];
    }
    (out, None)
}

/// One write that takes `most` bytes; says how many of them were of `offered`.
fn write_some(websocket: &mut WebSocket, offered: &[u8], most: usize, wire: &mut Vec<u8>) -> usize {
    let (own, count) = websocket.prepare(offered.len());
    assert!(count <= offered.len() && own.len() < 600);
    let all = [own, &offered[..count]].concat();
    let taken = all.len().min(most);
    wire.extend_from_slice(&all[..taken]);
    websocket.wrote(taken)
}

/// What the frames of a server hold; a close frame is the last one, and pongs are short.
fn binary_payload(mut wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [first, second, rest @ ..] = wire {
        let (len, from) = match second {
            126 => (usize::from(rest[0]) << 8 | usize::from(rest[1]), 2),
            127 => (rest[..8].iter().fold(0, |len, &byte| len << 8 | usize::from(byte)), 8),
            len => (usize::from(*len), 0),
        };
        let payload = &rest[from..from + len];
        wire = &rest[from + len..];
        match first {
            0x82 => out.extend_from_slice(payload),
            0x8A => assert!(len <= 125),
            0x88 => assert!(len <= 2 && wire.is_empty()),
            _ => panic!("{first:02x}"),
        }
    }
    out
}

//! Appends the standard's data types to a buffer. Values come from this program, not from a peer; what could not be
//! written as the standard wants it is cut to the nearest that can, and caught in debug builds.

use super::kind::Kind;
use super::{Properties, Version};

/// The greatest Variable Byte Integer.
pub(super) const VARIABLE_MAX: u32 = 268_435_455;

/// `value` as a Variable Byte Integer: the bytes, and how many of them count. [MQTT-1.5.5-1]
#[inline]
pub(super) fn variable_bytes(value: u32) -> ([u8; 4], usize) {
    debug_assert!(value <= VARIABLE_MAX);
    let mut rest = value.min(VARIABLE_MAX);
    let mut bytes = [0; 4];
    let mut len = 0;
    for byte in &mut bytes {
        len += 1;
        *byte = (rest & 0x7F) as u8;
        rest >>= 7;
        if rest == 0 {
            break;
        }
        *byte |= 0x80;
    }
    (bytes, len)
}

/// Bytes of `value` as a Variable Byte Integer.
#[inline]
pub(super) fn variable_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

#[inline]
pub(super) fn put_variable(out: &mut Vec<u8>, value: u32) {
    let (bytes, len) = variable_bytes(value);
    out.extend_from_slice(&bytes[..len]);
}

#[inline]
pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX));
    let len = bytes.len().min(usize::from(u16::MAX));
    put_u16(out, len as u16);
    out.extend_from_slice(&bytes[..len]);
}

#[inline]
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    put_binary(out, text.as_bytes());
}

/// Length and bytes of the properties; nothing in 3.x. [MQTT-2.2.2-1]
pub(super) fn put_properties(out: &mut Vec<u8>, version: Version, properties: Properties) {
    if version.has_properties() {
        let raw = properties.as_bytes();
        put_variable(out, raw.len() as u32);
        out.extend_from_slice(raw);
    }
}

/// Appends a packet of `kind` whose body `write` appends.
pub(super) fn put_frame(out: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    // Nearly all are so short that one byte will do for the length.
    out.extend_from_slice(&[kind.first_byte(), 0]);
    let body = out.len();
    write(out);
    let len = out.len() - body;
    match u8::try_from(len) {
        Ok(len @ ..0x80) => out[body - 1] = len,
        _ => {
            let (length, length_len) = variable_bytes(len as u32);
            out.splice(body - 1..body, length.into_iter().take(length_len));
        }
    }
}

//! Takes the standard's data types off the front of a byte slice, each with the words to say if it is not there.
//! Never panics and never allocates, whatever the bytes.

use super::DecodeError;
use super::kind::{Kind, malformed, protocol_error};

/// What may be wrong with a string or binary field.
pub(super) struct Field {
    pub cut: &'static str,
    pub not_utf8: &'static str,
    pub nul: &'static str,
}

/// The `Field` of a name such as "Will Topic of the CONNECT".
macro_rules! field {
    ($name:expr) => {
        $crate::codec::reader::Field {
            cut: concat!("the ", $name, " is missing or cut off"),
            not_utf8: concat!("the ", $name, " is not valid UTF-8"),
            nul: concat!("the ", $name, " has a U+0000"),
        }
    };
}
pub(super) use field;

#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Everything that is left, so that nothing is.
    #[inline]
    pub(super) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize, cut: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(malformed(cut))?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self, cut: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(malformed(cut))?;
        self.rest = tail;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self, cut: &'static str) -> Result<u8, DecodeError> {
        self.array(cut).map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self, cut: &'static str) -> Result<u16, DecodeError> {
        self.array(cut).map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self, cut: &'static str) -> Result<u32, DecodeError> {
        self.array(cut).map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer; `bad` is said for a padded, overlong or missing one alike. [MQTT-1.5.5-1]
    #[inline]
    pub(super) fn variable(&mut self, bad: &'static str) -> Result<u32, DecodeError> {
        match variable_prefix(self.rest) {
            Variable::Whole { value, len } => {
                self.take(len, bad)?;
                Ok(value)
            }
            Variable::NeedMore | Variable::Invalid => Err(malformed(bad)),
        }
    }

    #[inline]
    pub(super) fn binary(&mut self, field: &'static Field) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(field.cut)?;
        self.take(usize::from(len), field.cut)
    }

    /// A UTF-8 Encoded String. U+FEFF is a character like any other. [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.4-3]
    #[inline]
    pub(super) fn string(&mut self, field: &'static Field) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(field)?;
        if crate::topic::has_nul(bytes) {
            return Err(malformed(field.nul));
        }
        std::str::from_utf8(bytes).map_err(|_| malformed(field.not_utf8))
    }

    /// [MQTT-2.3.1-1] (3.1.1)
    #[inline]
    pub(super) fn packet_id(&mut self, kind: Kind) -> Result<u16, DecodeError> {
        match self.u16(kind.texts().packet_id_cut)? {
            0 => Err(protocol_error(kind.texts().packet_id_zero)),
            packet_id => Ok(packet_id),
        }
    }

    /// Nothing may follow the last field.
    #[inline]
    pub(super) fn end(&self, kind: Kind) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed(kind.texts().leftover)) }
    }
}

/// The Variable Byte Integer some bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    NeedMore,
    /// Padded with zero, or longer than four bytes.
    Invalid,
    Whole {
        value: u32,
        len: usize,
    },
}

#[inline]
pub(super) fn variable_prefix(bytes: &[u8]) -> Variable {
    let mut value = 0;
    for (position, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * position);
        if byte & 0x80 == 0 {
            let padded = position > 0 && byte == 0;
            return if padded { Variable::Invalid } else { Variable::Whole { value, len: position + 1 } };
        }
    }
    if bytes.len() < 4 { Variable::NeedMore } else { Variable::Invalid }
}

#[cfg(test)]
mod tests {
    use super::super::writer::put_variable;
    use super::*;

    static TEXT: Field = field!("text");

    fn string(bytes: &[u8]) -> Result<&str, &'static str> {
        Reader::new(bytes).string(&TEXT).map_err(|error| error.what)
    }

    #[test]
    fn v5_mqtt_1_5_5_1_variable_byte_integers_are_as_short_as_can_be() {
        let edges = [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ];
        for (value, bytes) in edges {
            assert_eq!(variable_prefix(bytes), Variable::Whole { value, len: bytes.len() });
            let mut written = Vec::new();
            put_variable(&mut written, value);
            assert_eq!(written, bytes);
            for cut in 0..bytes.len() {
                assert_eq!(variable_prefix(&bytes[..cut]), Variable::NeedMore);
            }
        }
        for bad in [&[0x80, 0x00][..], &[0xFF, 0x00], &[0x80, 0x80, 0x00], &[0x80; 4], &[0xFF, 0xFF, 0xFF, 0xFF, 0x01]]
        {
            assert_eq!(variable_prefix(bad), Variable::Invalid, "{bad:x?}");
        }
    }

    #[test]
    fn v311_mqtt_1_5_3_1_v5_mqtt_1_5_4_1_strings_are_utf8_without_surrogates() {
        assert_eq!(string(b"\x00\x02\xC3\xA9"), Ok("é"));
        assert_eq!(string(b"\x00\x04\xF0\xAA\x9B\x94"), Ok("\u{2A6D4}"));
        for bad in [&b"\x00\x03\xED\xA0\x80"[..], b"\x00\x03\xED\xBF\xBF", b"\x00\x02\xC0\x80", b"\x00\x01\xC3"] {
            assert_eq!(string(bad), Err("the text is not valid UTF-8"), "{bad:x?}");
        }
    }

    #[test]
    fn v311_mqtt_1_5_3_2_v5_mqtt_1_5_4_2_strings_have_no_nul() {
        assert_eq!(string(b"\x00\x03a\x00b"), Err("the text has a U+0000"));
    }

    #[test]
    fn v311_mqtt_1_5_3_3_v5_mqtt_1_5_4_3_the_byte_order_mark_is_a_character() {
        assert_eq!(string(b"\x00\x04\xEF\xBB\xBFa"), Ok("\u{FEFF}a"));
        assert_eq!(string(b"\x00\x04a\xEF\xBB\xBF"), Ok("a\u{FEFF}"));
    }

    #[test]
    fn a_field_that_claims_more_than_there_is_is_cut_off() {
        for bad in [&b""[..], b"\x00", b"\x00\x01", b"\xFF\xFFab"] {
            assert_eq!(string(bad), Err("the text is missing or cut off"));
        }
    }
}

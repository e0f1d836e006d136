//! Frames of RFC 6455, section 5: a client's frames to their payload, and the headers of our own. Reading works in place: the
//! payload is unmasked where it arrived and moved to the front, over the headers that stood between. What is kept between
//! reads is the header of one frame and the payload of one control frame, whatever length a peer claims.

use super::Fault;

/// Two bytes, a length of eight, a mask of four.
const HEADER_MAX: usize = 14;
/// Payload of a control frame.
const CONTROL_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

pub const NORMAL_CLOSURE: u16 = 1000;
pub const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;

/// Where decoding stands in a buffer: what is behind `write` and before `read` is used up.
#[derive(Debug, Default)]
pub struct Cursor {
    pub read: usize,
    /// The bytes before it are payload of binary frames.
    pub write: usize,
}

/// What stopped decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// All bytes are used up.
    Nothing,
    /// Its payload is in `Decoder::control`.
    Ping,
    /// Likewise.
    Close,
}

/// The payload of a control frame.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    len: u8,
    bytes: [u8; CONTROL_MAX],
}

impl Control {
    const EMPTY: Control = Control { len: 0, bytes: [0; CONTROL_MAX] };

    pub fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Appends what fits; the header has been checked, so that is all.
    fn append(&mut self, more: &[u8]) {
        let room = &mut self.bytes[usize::from(self.len)..];
        let count = more.len().min(room.len());
        room[..count].copy_from_slice(&more[..count]);
        self.len += count as u8;
    }
}

#[derive(Debug)]
pub struct Decoder {
    header: [u8; HEADER_MAX],
    header_len: u8,
    /// Turned so that its first byte is for the next byte of payload.
    mask: [u8; 4],
    /// Bytes of payload to come.
    left: u64,
    is_in_payload: bool,
    /// A message has begun whose last frame is still to come.
    is_fragmented: bool,
    pub control: Control,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            header: [0; HEADER_MAX],
            header_len: 0,
            mask: [0; 4],
            left: 0,
            is_in_payload: false,
            is_fragmented: false,
            control: Control::EMPTY,
        }
    }
}

impl Decoder {
    /// Goes on until the bytes are used up, a ping or close is whole, or a rule is broken.
    pub fn decode(&mut self, bytes: &mut [u8], cursor: &mut Cursor) -> Result<Found, Fault> {
        loop {
            while !self.is_in_payload {
                let Some(&byte) = bytes.get(cursor.read) else { return Ok(Found::Nothing) };
                cursor.read += 1;
                self.take_header(byte)?;
            }
            self.take_payload(bytes, cursor);
            if self.left > 0 {
                return Ok(Found::Nothing);
            }
            self.is_in_payload = false;
            self.header_len = 0;
            match self.opcode() {
                PING => return Ok(Found::Ping),
                CLOSE => return Ok(Found::Close),
                _ => {}
            }
        }
    }

    fn opcode(&self) -> u8 {
        self.header[0] & 0x0F
    }

    /// One more byte of a header; what it breaks is told at once.
    fn take_header(&mut self, byte: u8) -> Result<(), Fault> {
        let at = usize::from(self.header_len);
        self.header[at] = byte;
        self.header_len += 1;
        match at {
            0 => self.check_first(byte),
            1 => self.check_second(byte),
            _ if at + 1 == self.header_end() => self.begin_payload(),
            _ => Ok(()),
        }
    }

    fn check_first(&mut self, byte: u8) -> Result<(), Fault> {
        let is_final = byte & FIN != 0;
        if byte & RESERVED != 0 {
            return Err(broken("a reserved bit is set, though no extension was agreed on"));
        }
        match self.opcode() {
            // [MQTT-6.0.0-1]
            TEXT => Err(Fault { code: UNSUPPORTED_DATA, what: "a text frame came; MQTT goes in binary frames" }),
            CONTINUATION if !self.is_fragmented => Err(broken("a frame continues a message that was never begun")),
            BINARY if self.is_fragmented => Err(broken("a message begins before the last one has ended")),
            CONTINUATION | BINARY => {
                self.is_fragmented = !is_final;
                Ok(())
            }
            CLOSE | PING | PONG if is_final => Ok(()),
            CLOSE | PING | PONG => Err(broken("a control frame is fragmented")),
            _ => Err(broken("a frame is of no known type")),
        }
    }

    fn check_second(&self, byte: u8) -> Result<(), Fault> {
        if byte & MASKED == 0 {
            return Err(broken("a frame is not masked, as a client's must be"));
        }
        if self.is_control() && usize::from(byte & !MASKED) > CONTROL_MAX {
            return Err(broken("a control frame has more than 125 bytes"));
        }
        Ok(())
    }

    fn is_control(&self) -> bool {
        self.opcode() >= CLOSE
    }

    /// Where the mask begins. Known from the second byte on.
    fn mask_at(&self) -> usize {
        match self.header[1] & !MASKED {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn header_end(&self) -> usize {
        self.mask_at() + 4
    }

    fn begin_payload(&mut self) -> Result<(), Fault> {
        let mask_at = self.mask_at();
        self.left = match self.header[1] & !MASKED {
            126 | 127 => self.header[2..mask_at].iter().fold(0, |number, &byte| number << 8 | u64::from(byte)),
            short => u64::from(short),
        };
        if self.left >> 63 != 0 {
            return Err(broken("a frame claims more than 2^63 bytes"));
        }
        self.mask.copy_from_slice(&self.header[mask_at..mask_at + 4]);
        self.is_in_payload = true;
        if self.is_control() {
            self.control = Control::EMPTY;
        }
        Ok(())
    }

    /// What is there of the frame's payload.
    fn take_payload(&mut self, bytes: &mut [u8], cursor: &mut Cursor) {
        let there = bytes.len() - cursor.read;
        let count = usize::try_from(self.left).map_or(there, |left| left.min(there));
        let from = cursor.read..cursor.read + count;
        unmask(&mut bytes[from.clone()], self.mask);
        self.mask.rotate_left(count % 4);
        self.left -= count as u64;
        cursor.read += count;
        if self.is_control() {
            self.control.append(&bytes[from]);
        } else {
            bytes.copy_within(from, cursor.write);
            cursor.write += count;
        }
    }
}

const fn broken(what: &'static str) -> Fault {
    Fault { code: PROTOCOL_ERROR, what }
}

/// Eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let mut masked = [0; 8];
        masked.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(masked) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// The header of a whole binary message of `len` bytes. [MQTT-6.0.0-1]
pub fn push_binary_header(len: usize, out: &mut Vec<u8>) {
    out.push(FIN | BINARY);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend((len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend((len as u64).to_be_bytes());
        }
    }
}

pub fn push_pong(ping: &Control, out: &mut Vec<u8>) {
    out.extend([FIN | PONG, ping.len]);
    out.extend(ping.payload());
}

/// A close frame; with no code if there is none.
pub fn push_close(code: Option<u16>, out: &mut Vec<u8>) {
    match code {
        None => out.extend([FIN | CLOSE, 0]),
        Some(code) => {
            let [high, low] = code.to_be_bytes();
            out.extend([FIN | CLOSE, 2, high, low]);
        }
    }
}

/// The code to answer a close frame with: the peer's own, if it may send that one.
pub fn close_code(close: &Control) -> Option<u16> {
    match *close.payload() {
        [] => None,
        [high, low, ..] => match u16::from_be_bytes([high, low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Some(code),
            _ => Some(PROTOCOL_ERROR),
        },
        _ => Some(PROTOCOL_ERROR),
    }
}

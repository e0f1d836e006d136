//! One WebSocket as the server's end sees it: the socket's bytes in, MQTT bytes out of them, and what goes to the socket
//! around the MQTT bytes of the broker. Pure; `Transport` moves the bytes.
//!
//! Reading works in the caller's buffer. For writing, `prepare` puts one frame around all that is offered and says what
//! is to be written: bytes of our own, then payload. A frame that was begun is ended before anything else goes out.
//! A message costs no copy, no allocation, and the headers of its frame.

mod frames;
mod handshake;

use std::fmt;

use self::frames::{Control, Cursor, Decoder, Found, NORMAL_CLOSURE};

/// A rule of the WebSocket protocol that the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it is told: a status of HTTP, or from 1000 on a code of a close frame.
    pub code: u16,
    pub what: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { code, what } = self;
        match code {
            0..1000 => write!(f, "WebSocket refused with HTTP status {code}: {what}"),
            _ => write!(f, "WebSocket closed with code {code}: {what}"),
        }
    }
}

/// Why nothing more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The peer sent a close frame.
    Closed,
    Broken(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingRequest,
    Open,
    /// What still arrives is passed over.
    Ended,
}

#[derive(Debug)]
pub struct WebSocket {
    state: State,
    /// The request, until it is whole.
    head: Vec<u8>,
    decoder: Decoder,
    /// Bytes that stand before the payload: the answer to the request, control frames, the header of a frame.
    own: Vec<u8>,
    /// Those already written.
    own_at: usize,
    /// Bytes of payload that the last header in `own` still promises.
    frame_left: usize,
    /// The latest ping that is to be answered. [RFC 6455, section 5.5.3]
    ping: Option<Control>,
    /// A close frame that is to be sent, and its code.
    close: Option<Option<u16>>,
    /// No frame may follow: a close frame was sent, or the request was refused.
    is_closed: bool,
}

impl Default for WebSocket {
    fn default() -> WebSocket {
        WebSocket {
            state: State::AwaitingRequest,
            head: Vec::new(),
            decoder: Decoder::default(),
            own: Vec::new(),
            own_at: 0,
            frame_left: 0,
            ping: None,
            close: None,
            is_closed: false,
        }
    }
}

impl WebSocket {
    /// Takes what the socket brought, and leaves the MQTT bytes in it at the front of `bytes`: how many, and whether that
    /// was the end.
    pub fn receive(&mut self, bytes: &mut [u8]) -> (usize, Option<Ending>) {
        let mut cursor = Cursor::default();
        match self.advance(bytes, &mut cursor) {
            Ok(()) if self.state == State::Ended => (cursor.write, Some(Ending::Closed)),
            Ok(()) => (cursor.write, None),
            Err(fault) => {
                self.fail(fault);
                (cursor.write, Some(Ending::Broken(fault)))
            }
        }
    }

    fn advance(&mut self, bytes: &mut [u8], cursor: &mut Cursor) -> Result<(), Fault> {
        if self.state == State::AwaitingRequest {
            cursor.read = self.take_request(bytes)?;
        }
        while self.state == State::Open {
            match self.decoder.decode(bytes, cursor)? {
                Found::Nothing => break,
                Found::Ping => self.ping = Some(self.decoder.control),
                Found::Close => {
                    self.close = Some(frames::close_code(&self.decoder.control));
                    self.state = State::Ended;
                }
            }
        }
        Ok(())
    }

    /// Says how many of the bytes belong to the request; frames may follow it in the same read.
    fn take_request(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let before = self.head.len();
        let room = handshake::HEAD_MAX - before;
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        let Some((len, answer)) = handshake::accept(&self.head)? else { return Ok(bytes.len()) };
        self.head = Vec::new();
        self.own = answer;
        self.state = State::Open;
        Ok(len.saturating_sub(before))
    }

    /// Tells the peer what it did, once.
    fn fail(&mut self, fault: Fault) {
        if self.state == State::AwaitingRequest {
            self.head = Vec::new();
            self.own = handshake::refusal(fault);
            self.is_closed = true;
        } else {
            self.close = Some(Some(fault.code));
        }
        self.state = State::Ended;
    }

    /// The broker ends the connection: a close frame goes out when the frames before it have.
    pub fn end(&mut self) {
        match self.state {
            State::AwaitingRequest => self.is_closed = true,
            State::Open => self.close = Some(Some(NORMAL_CLOSURE)),
            State::Ended => {}
        }
        self.state = State::Ended;
    }

    /// What is to be written next: these bytes, and behind them the first so many of the `offered` ones.
    pub fn prepare(&mut self, offered: usize) -> (&[u8], usize) {
        if self.frame_left == 0 {
            if self.own_at == self.own.len() {
                self.own.clear();
                self.own_at = 0;
                self.prepare_control();
            }
            let is_open = self.state != State::AwaitingRequest && !self.is_closed;
            if is_open && offered > 0 {
                frames::push_binary_header(offered, &mut self.own);
                self.frame_left = offered;
            }
        }
        (&self.own[self.own_at..], self.frame_left.min(offered))
    }

    /// Control frames go between frames, when those before them are written: so there is never more than one of each.
    fn prepare_control(&mut self) {
        if self.is_closed {
            return;
        }
        if let Some(ping) = self.ping.take() {
            frames::push_pong(&ping, &mut self.own);
        }
        if let Some(code) = self.close.take() {
            frames::push_close(code, &mut self.own);
            self.is_closed = true;
        }
    }

    /// The socket took so many of the bytes that `prepare` named; says how many of them were payload.
    pub fn wrote(&mut self, count: usize) -> usize {
        let own = count.min(self.own.len() - self.own_at);
        self.own_at += own;
        let payload = (count - own).min(self.frame_left);
        self.frame_left -= payload;
        payload
    }

    /// There is something to write even if the broker offers nothing.
    pub fn has_output(&self) -> bool {
        let has_control = !self.is_closed && (self.ping.is_some() || self.close.is_some());
        self.own_at < self.own.len() || has_control
    }

    /// What the broker still offers goes nowhere.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    const MASK: [u8; 4] = [0xA1, 0x02, 0xFF, 0x38];

    const FINAL_BINARY: u8 = 0x82;
    const FINAL_CONTINUATION: u8 = 0x80;

    /// A client's frame, its first byte given.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xFFFF => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend((len as u64).to_be_bytes());
            }
        }
        out.extend(MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    fn numbered(len: usize) -> Vec<u8> {
        (0..len).map(|number| (number * 7 + number / 256) as u8).collect()
    }

    /// An open WebSocket whose answer was written.
    fn open() -> WebSocket {
        let mut websocket = WebSocket::default();
        assert_eq!(websocket.receive(&mut REQUEST.to_vec()), (0, None));
        assert!(write(&mut websocket, b"", usize::MAX).starts_with(b"HTTP/1.1 101 "));
        websocket
    }

    /// The MQTT bytes in these pieces, up to an end.
    fn receive<'a>(websocket: &mut WebSocket, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Ending>) {
        let mut seen = Vec::new();
        for piece in pieces {
            let mut bytes = piece.to_vec();
            let (count, ending) = websocket.receive(&mut bytes);
            seen.extend_from_slice(&bytes[..count]);
            if ending.is_some() {
                return (seen, ending);
            }
        }
        (seen, None)
    }

    /// What a socket sees that takes `most` bytes at a time, when all of `payload` is offered until it is gone.
    fn write(websocket: &mut WebSocket, payload: &[u8], most: usize) -> Vec<u8> {
        let (mut seen, mut at) = (Vec::new(), 0);
        loop {
            let (own, count) = websocket.prepare(payload.len() - at);
            let all = [own, &payload[at..at + count]].concat();
            if all.is_empty() {
                return seen;
            }
            let taken = all.len().min(most);
            seen.extend_from_slice(&all[..taken]);
            at += websocket.wrote(taken);
        }
    }

    /// The frames of a server: first byte and payload.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let [first, len, rest @ ..] = bytes {
            let (len, from) = match len {
                126 => (u64::from(u16::from_be_bytes(rest[..2].try_into().unwrap())), 2),
                127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()), 8),
                len => (u64::from(*len), 0),
            };
            let end = from + len as usize;
            frames.push((*first, rest[from..end].to_vec()));
            bytes = &rest[end..];
        }
        assert!(bytes.is_empty());
        frames
    }

    #[test]
    fn request_and_frames_may_be_split_anywhere() {
        let stream = [REQUEST, &frame(FINAL_BINARY, b"one"), &frame(FINAL_BINARY, b"twenty")].concat();
        for at in 0..=stream.len() {
            let mut websocket = WebSocket::default();
            let (left, right) = stream.split_at(at);
            let seen = receive(&mut websocket, [left, right]);
            assert_eq!(seen, (b"onetwenty".to_vec(), None), "{at}");
            let answer = String::from_utf8(write(&mut websocket, b"", 7)).unwrap();
            assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") && answer.ends_with("\r\n\r\n"), "{answer}");
        }
        let seen = receive(&mut WebSocket::default(), stream.chunks(1));
        assert_eq!(seen, (b"onetwenty".to_vec(), None));
    }

    #[test]
    fn frames_of_every_form_of_length_are_read() {
        for len in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 200_000] {
            let (payload, after) = (numbered(len), frame(FINAL_BINARY, b"after"));
            let stream = [frame(FINAL_BINARY, &payload), after].concat();
            let expected = ([&payload[..], b"after"].concat(), None);
            for at in (0..20).chain([len, len + 7, stream.len()]).filter(|at| *at <= stream.len()) {
                let (left, right) = stream.split_at(at);
                assert!(receive(&mut open(), [left, right]) == expected, "{len} at {at}");
            }
            for size in [3, 13, 4096] {
                assert!(receive(&mut open(), stream.chunks(size)) == expected, "{len} by {size}");
            }
        }
    }

    #[test]
    fn a_claimed_length_is_only_counted() {
        let mut websocket = open();
        let header = [&[FINAL_BINARY, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0], &MASK[..]].concat();
        assert_eq!(receive(&mut websocket, [&header[..]]), (vec![], None));
        for _ in 0..100 {
            assert_eq!(websocket.receive(&mut [0; 1000]), (1000, None));
        }
    }

    #[test]
    fn a_message_in_fragments_is_one_stream_and_a_ping_may_stand_between_them() {
        let stream = [
            frame(0x02, b"ab"),
            frame(0x89, b"still there?"),
            frame(0x00, b""),
            frame(0x00, b"cd"),
            frame(0x8A, b"nobody asked"),
            frame(FINAL_CONTINUATION, b"ef"),
            frame(FINAL_BINARY, b"gh"),
        ]
        .concat();
        for size in 1..=stream.len() {
            let mut websocket = open();
            assert_eq!(receive(&mut websocket, stream.chunks(size)), (b"abcdefgh".to_vec(), None));
            assert!(websocket.has_output());
            assert_eq!(frames(&write(&mut websocket, b"", size)), [(0x8A, b"still there?".to_vec())]);
            assert!(!websocket.has_output());
        }
    }

    #[test]
    fn what_is_offered_goes_out_as_one_frame_however_little_the_socket_takes() {
        for len in [1, 125, 126, 65_535, 65_536] {
            let payload = numbered(len);
            for most in [1, 2, 3, 100, usize::MAX] {
                let mut websocket = open();
                let seen = write(&mut websocket, &payload, most);
                assert!(frames(&seen) == [(FINAL_BINARY, payload.clone())], "{len} by {most}");
                let header = seen.len() - len;
                assert_eq!(header, if len < 126 { 2 } else { 4 } + if len > 65_535 { 6 } else { 0 });
            }
        }
    }

    #[test]
    fn control_frames_wait_for_the_end_of_a_frame_and_only_the_latest_ping_counts() {
        let mut websocket = open();
        let (own, count) = websocket.prepare(5);
        assert_eq!((own, count), (&[FINAL_BINARY, 5][..], 5));
        assert_eq!(websocket.wrote(4), 2);
        for number in 0..100u8 {
            receive(&mut websocket, [&frame(0x89, &[number])[..]]);
        }
        // More was offered meanwhile; the frame ends where it said.
        assert_eq!(websocket.prepare(20), (&[][..], 3));
        assert_eq!(websocket.wrote(3), 3);
        assert_eq!(websocket.prepare(17), (&[0x8A, 1, 99, FINAL_BINARY, 17][..], 17));
        // The pong is under way: the next one waits for its turn.
        assert_eq!(websocket.wrote(2), 0);
        receive(&mut websocket, [&frame(0x89, b"x")[..]]);
        assert_eq!(websocket.prepare(17), (&[99, FINAL_BINARY, 17][..], 17));
        assert_eq!(websocket.wrote(20), 17);
        assert_eq!(websocket.prepare(0), (&[0x8A, 1, b'x'][..], 0));
    }

    #[test]
    fn what_was_not_written_of_a_pong_stays_bounded() {
        let mut websocket = open();
        for _ in 0..1000 {
            receive(&mut websocket, [&frame(0x89, &[b'x'; 125])[..]]);
            websocket.prepare(0);
            websocket.wrote(1);
        }
        assert!(websocket.own.capacity() < 512);
    }

    #[test]
    fn each_broken_rule_ends_it_with_its_code_after_what_came_before() {
        let not_masked = |first: u8, rest: &[u8]| [&[first, rest.len() as u8], rest].concat();
        for (bytes, code, named) in [
            (frame(0x81, b"text"), 1003, "text"),
            (frame(0x01, b"text"), 1003, "text"),
            (not_masked(FINAL_BINARY, b"bare"), 1002, "masked"),
            (not_masked(0x89, b""), 1002, "masked"),
            (frame(0xC2, b"deflated"), 1002, "reserved"),
            (frame(0xA2, b""), 1002, "reserved"),
            (frame(0x92, b""), 1002, "reserved"),
            (frame(0x83, b""), 1002, "no known type"),
            (frame(0x8B, b""), 1002, "no known type"),
            (frame(FINAL_CONTINUATION, b""), 1002, "never begun"),
            ([frame(0x02, b""), frame(FINAL_BINARY, b"")].concat(), 1002, "before the last one has ended"),
            (frame(0x09, b""), 1002, "control frame is fragmented"),
            (frame(0x08, b""), 1002, "control frame is fragmented"),
            (frame(0x89, &[0; 126]), 1002, "125"),
            (vec![FINAL_BINARY, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1002, "2^63"),
        ] {
            let stream = [frame(FINAL_BINARY, b"before"), bytes, frame(FINAL_BINARY, b"after")].concat();
            for size in [1, 3, stream.len()] {
                let mut websocket = open();
                let (seen, ending) = receive(&mut websocket, stream.chunks(size));
                let Some(Ending::Broken(fault)) = ending else { panic!("{ending:?}") };
                assert!(fault.code == code && fault.what.contains(named), "{fault}");
                assert_eq!(seen, b"before");
                assert_eq!(frames(&write(&mut websocket, b"late", 1)), [(0x88, code.to_be_bytes().to_vec())]);
                assert!(websocket.is_closed() && !websocket.has_output());
            }
        }
    }

    #[test]
    fn a_close_is_answered_with_its_code_and_nothing_follows() {
        for (payload, answer) in [
            (&b""[..], &b""[..]),
            (b"\x03\xE8bye", b"\x03\xE8"),
            (b"\x0F\xA0", b"\x0F\xA0"),
            (b"\x03", b"\x03\xEA"),
            (b"\x03\xED", b"\x03\xEA"),
            (b"\x00\x00", b"\x03\xEA"),
            (b"\xFF\xFF", b"\x03\xEA"),
        ] {
            let stream = [frame(FINAL_BINARY, b"last"), frame(0x88, payload), frame(0x81, b"?")].concat();
            let mut websocket = open();
            assert_eq!(receive(&mut websocket, [&stream[..]]), (b"last".to_vec(), Some(Ending::Closed)));
            assert_eq!(frames(&write(&mut websocket, b"late", 1)), [(0x88, answer.to_vec())]);
            assert_eq!(receive(&mut websocket, [&stream[..]]), (vec![], Some(Ending::Closed)));
            assert!(!websocket.has_output());
        }
    }

    #[test]
    fn a_close_of_the_broker_follows_the_frame_it_was_writing() {
        let mut websocket = open();
        websocket.prepare(3);
        websocket.wrote(2);
        websocket.end();
        assert_eq!(websocket.prepare(0), (&[][..], 0));
        assert_eq!(websocket.prepare(3), (&[][..], 3));
        websocket.wrote(3);
        assert_eq!(websocket.prepare(0), (&[0x88, 2, 0x03, 0xE8][..], 0));
        // Before there is a WebSocket there is nothing to close.
        let mut websocket = WebSocket::default();
        websocket.end();
        assert_eq!(websocket.prepare(7), (&[][..], 0));
    }

    #[test]
    fn a_refused_request_is_answered_in_http_and_nothing_follows() {
        let request = REQUEST.iter().map(|byte| if *byte == b'1' { b'2' } else { *byte }).collect::<Vec<u8>>();
        for size in [1, 50, request.len()] {
            let mut websocket = WebSocket::default();
            let (seen, ending) = receive(&mut websocket, request.chunks(size));
            assert!(seen.is_empty() && matches!(ending, Some(Ending::Broken(Fault { code: 400, .. }))), "{ending:?}");
            assert!(websocket.head.capacity() == 0);
            let answer = write(&mut websocket, b"late", 9);
            assert!(answer.starts_with(b"HTTP/1.1 400 ") && answer.ends_with(b".\n"));
        }
        let mut websocket = WebSocket::default();
        let (_, ending) = receive(&mut websocket, [&[b'A'; 10_000][..]]);
        assert!(matches!(ending, Some(Ending::Broken(Fault { code: 431, .. }))), "{ending:?}");
    }

    #[test]
    fn made_up_streams_pass_both_ways_whatever_their_pieces() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % limit
        };
        for _ in 0..300 {
            let (mut stream, mut expected) = (REQUEST.to_vec(), Vec::new());
            for _ in 0..below(20) {
                let payload = numbered([below(10), below(300), below(70_000)][below(3)]);
                let cuts = below(4);
                let pieces: Vec<&[u8]> = payload.chunks(payload.len() / (cuts + 1) + 1).collect();
                for (at, piece) in pieces.iter().enumerate() {
                    let opcode = if at == 0 { 2 } else { 0 };
                    let last = if at + 1 == pieces.len() { 0x80 } else { 0 };
                    stream.extend(frame(opcode | last, piece));
                    if below(4) == 0 {
                        stream.extend(frame(0x89, &numbered(below(126))));
                    }
                }
                expected.extend_from_slice(&payload);
            }
            let (mut websocket, mut seen, mut sent, mut out) = (WebSocket::default(), vec![], 0, vec![]);
            while !stream.is_empty() {
                let mut piece: Vec<u8> = stream.drain(..(1 + below(70_000)).min(stream.len())).collect();
                let (count, ending) = websocket.receive(&mut piece);
                assert_eq!(ending, None);
                seen.extend_from_slice(&piece[..count]);
                // The stream goes back to where it came from, in writes that are cut short.
                let (own, count) = websocket.prepare(seen.len() - sent);
                let all = [own, &seen[sent..sent + count]].concat();
                let taken = below(all.len() + 1);
                out.extend_from_slice(&all[..taken]);
                sent += websocket.wrote(taken);
            }
            assert!(seen == expected);
            out.extend(write(&mut websocket, &seen[sent..], 10_000));
            let head = out.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            let binary = frames(&out[head..]).into_iter().filter(|(first, _)| *first == FINAL_BINARY);
            assert!(binary.flat_map(|(_, payload)| payload).collect::<Vec<u8>>() == expected);
        }
    }
}

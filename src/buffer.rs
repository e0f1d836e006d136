//! The byte buffers of a connection. `InBuf` holds input only while a packet is unfinished or its link is paused;
//! `OutBuf` holds output only until it is written. An idle connection holds neither: spent memory goes back to the
//! `Pool`, so that steady traffic allocates nothing. Knows neither sockets nor packets.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

/// Spent buffers for the next link that needs one. Bounded: what is left over is freed.
#[derive(Default)]
pub struct Pool {
    spare: Vec<Vec<u8>>,
}

impl Pool {
    /// 32 buffers of at most 16 kB: half a megabyte at the worst, and more than the links that are busy in one turn
    /// on a small machine.
    const SPARE_MAX: usize = 32;
    const CAPACITY_MAX: usize = 16 << 10;

    pub fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub fn put(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= Pool::CAPACITY_MAX && self.spare.len() < Pool::SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Frees the spare buffers.
    pub fn trim(&mut self) {
        self.spare = Vec::new();
    }
}

/// Input that could not be used up yet: the beginning of a packet, or whole packets of a paused link.
#[derive(Default)]
pub struct InBuf {
    bytes: Vec<u8>,
    head: usize,
    /// Bytes behind `head` that were looked at ahead of their turn.
    looked_at: usize,
}

impl InBuf {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `more`. Grows by what has arrived, never by what a peer announced.
    pub fn append(&mut self, more: &[u8], pool: &mut Pool) {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        if self.head > 0 && self.bytes.len() + more.len() > self.bytes.capacity() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    /// Forgets the first `count` bytes; an empty buffer goes back to the pool.
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        self.head += count;
        self.looked_at = self.looked_at.saturating_sub(count);
        if self.head >= self.bytes.len() {
            pool.put(std::mem::take(self).bytes);
        }
    }

    /// Where looking ahead goes on, counted from the first byte.
    pub fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Looking ahead went from `looked_at` through `looked` bytes and used up those in `taken` (ascending, within the
    /// looked-at part): they are cut out.
    pub fn cut(&mut self, looked: usize, taken: &[std::ops::Range<usize>]) {
        let base = self.head;
        let mut write = taken.first().map_or(0, |range| base + range.start);
        for (at, range) in taken.iter().enumerate() {
            let end = taken.get(at + 1).map_or(self.bytes.len(), |next| base + next.start);
            self.bytes.copy_within(base + range.end..end, write);
            write += end - (base + range.end);
        }
        let removed: usize = taken.iter().map(|range| range.len()).sum();
        if removed > 0 {
            self.bytes.truncate(write);
        }
        self.looked_at = looked - removed;
    }
}

/// Output on its way: encoded packets in one buffer, with large payloads between them that many links share.
#[derive(Default)]
pub struct OutBuf {
    bytes: Vec<u8>,
    head: usize,
    shared: VecDeque<Shared>,
    shared_len: usize,
}

/// A payload that follows the first `at` bytes of the buffer.
struct Shared {
    at: usize,
    data: Rc<[u8]>,
    from: usize,
}

impl OutBuf {
    /// Slices one write takes: the kernel allows 1024, and past some dozens a second write costs less than the list.
    pub const SLICES_MAX: usize = 32;

    /// Bytes to write.
    pub fn len(&self) -> usize {
        self.own_len() + self.shared_len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes to write without the shared payloads: what the output itself takes of memory.
    pub fn own_len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// The buffer to append encoded packets to.
    pub fn tail(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        &mut self.bytes
    }

    /// Appends `data[from..]` without copying it.
    pub fn append_shared(&mut self, data: Rc<[u8]>, from: usize) {
        if from < data.len() {
            self.shared_len += data.len() - from;
            self.shared.push_back(Shared { at: self.bytes.len(), data, from });
        }
    }

    /// The output as slices for one vectored write; an empty list if there is none.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; OutBuf::SLICES_MAX]) -> usize {
        let (mut at, mut count) = (self.head, 0);
        for shared in &self.shared {
            if shared.at > at && count < OutBuf::SLICES_MAX {
                slices[count] = IoSlice::new(&self.bytes[at..shared.at]);
                at = shared.at;
                count += 1;
            }
            if count == OutBuf::SLICES_MAX {
                return count;
            }
            slices[count] = IoSlice::new(&shared.data[shared.from..]);
            count += 1;
        }
        if at < self.bytes.len() && count < OutBuf::SLICES_MAX {
            slices[count] = IoSlice::new(&self.bytes[at..]);
            count += 1;
        }
        count
    }

    /// The first `count` bytes were written. An empty buffer goes back to the pool.
    pub fn advance(&mut self, mut count: usize, pool: &mut Pool) {
        while let Some(shared) = self.shared.front_mut() {
            let own = (shared.at - self.head).min(count);
            self.head += own;
            count -= own;
            let rest = shared.data.len() - shared.from;
            if self.head < shared.at || count < rest {
                shared.from += count;
                self.shared_len -= count;
                self.compact();
                return;
            }
            count -= rest;
            self.shared_len -= rest;
            self.shared.pop_front();
        }
        self.head += count;
        debug_assert!(self.head <= self.bytes.len());
        if self.is_empty() {
            pool.put(std::mem::take(self).bytes);
        } else {
            self.compact();
        }
    }

    /// Output that is never quite empty must not keep all that was written before it.
    fn compact(&mut self) {
        if self.head > Pool::CAPACITY_MAX && self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.shared.iter_mut().for_each(|shared| shared.at -= self.head);
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(out: &mut OutBuf, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        let mut pool = Pool::default();
        while !out.is_empty() {
            let mut chunk = Vec::new();
            let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
            let count = out.slices(&mut slices);
            assert!(count > 0);
            slices[..count].iter().for_each(|slice| chunk.extend_from_slice(slice));
            chunk.truncate(step);
            out.advance(chunk.len(), &mut pool);
            all.extend(chunk);
        }
        all
    }

    #[test]
    fn shared_payloads_keep_their_place_however_writes_are_cut() {
        let payload: Rc<[u8]> = Rc::from(&b"xxPAYLOAD"[..]);
        for step in 1..40 {
            let (mut out, mut pool) = (OutBuf::default(), Pool::default());
            out.tail(&mut pool).extend(b"head1 ");
            out.append_shared(payload.clone(), 2);
            out.append_shared(payload.clone(), 5);
            out.tail(&mut pool).extend(b" head2 ");
            out.append_shared(payload.clone(), 8);
            out.append_shared(payload.clone(), 9);
            out.tail(&mut pool).extend(b"!");
            assert_eq!(out.len(), 26);
            assert_eq!(written(&mut out, step), b"head1 PAYLOADLOAD head2 D!", "{step}");
        }
        assert_eq!(Rc::strong_count(&payload), 1);
    }

    #[test]
    fn more_payloads_than_slices_are_written_in_several_turns() {
        let payload: Rc<[u8]> = Rc::from(&b"ab"[..]);
        let (mut out, mut pool) = (OutBuf::default(), Pool::default());
        let mut expected = Vec::new();
        for number in 0..100u8 {
            out.tail(&mut pool).push(number);
            out.append_shared(payload.clone(), 0);
            expected.extend([number, b'a', b'b']);
        }
        assert_eq!(written(&mut out, 1000), expected);
    }

    #[test]
    fn written_bytes_are_given_up_though_output_never_ends() {
        let payload: Rc<[u8]> = Rc::from(&[7u8; 100][..]);
        let (mut out, mut pool) = (OutBuf::default(), Pool::default());
        for _ in 0..10_000 {
            out.tail(&mut pool).extend([1; 30]);
            out.append_shared(payload.clone(), 0);
            if out.len() > 1000 {
                out.advance(130, &mut pool);
            }
        }
        assert!(out.bytes.capacity() < 100_000, "{}", out.bytes.capacity());
        let rest = written(&mut out, 77);
        assert!(rest.chunks(130).skip(1).all(|packet| packet[..30] == [1; 30] || !rest.len().is_multiple_of(130)));
    }

    #[test]
    fn an_empty_buffer_holds_no_memory() {
        let (mut out, mut input, mut pool) = (OutBuf::default(), InBuf::default(), Pool::default());
        out.tail(&mut pool).extend(b"12345");
        input.append(b"12345", &mut pool);
        out.advance(5, &mut pool);
        input.consume(5, &mut pool);
        assert_eq!((out.bytes.capacity(), input.bytes.capacity(), pool.spare.len()), (0, 0, 2));
    }

    #[test]
    fn looking_ahead_cuts_out_what_it_used() {
        let mut pool = Pool::default();
        let mut input = InBuf::default();
        input.append(b"..aaXXbbYYcc", &mut pool);
        input.consume(2, &mut pool);
        input.cut(8, &[2..4, 6..8]);
        assert_eq!((input.bytes(), input.looked_at()), (&b"aabbcc"[..], 4));
        input.cut(6, &[]);
        assert_eq!((input.bytes(), input.looked_at()), (&b"aabbcc"[..], 6));
        input.consume(3, &mut pool);
        assert_eq!((input.bytes(), input.looked_at()), (&b"bcc"[..], 3));
    }
}

//! The byte buffers of a connection. `InBuf` holds input only while a packet is unfinished or its link is paused;
//! `OutBuf` holds output only until it is written. An idle connection holds neither, but one pointer for each: spent memory
//! goes back to the `Pool`, so that steady traffic allocates nothing, and from there to the allocator when it was not needed
//! for a while. Knows neither sockets nor packets.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Deref;
use std::rc::Rc;

/// Input that grows further by a quarter of what there is; and packets of this length are kept as they arrived.
pub const LARGE_LEN: usize = 256 << 10;

/// Bytes that are shared, in one of the forms in which they come: copied, or as the buffer they arrived in.
#[derive(Clone, Debug)]
pub enum Shared {
    Copied(Rc<[u8]>),
    Arrived(Rc<Vec<u8>>),
}

impl Deref for Shared {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Shared::Copied(bytes) => bytes,
            Shared::Arrived(bytes) => bytes,
        }
    }
}

/// Spent buffers for the next link that needs one. Bounded: what is left over is freed.
#[derive(Default)]
pub struct Pool {
    // Boxed, so that giving and taking moves a pointer.
    #[allow(clippy::vec_box)]
    output: Vec<Box<Output>>,
    #[allow(clippy::vec_box)]
    input: Vec<Box<Input>>,
    /// What the spare buffers take of memory.
    bytes: usize,
    /// The fewest spare buffers there were since the last trim: so many were not needed.
    unused: usize,
}

impl Pool {
    /// A megabyte: a buffer for each of a thousand subscribers, written to in one turn.
    const BYTES_MAX: usize = 1 << 20;
    /// What a single one may keep.
    const CAPACITY_MAX: usize = 16 << 10;
    /// Buffers come and go in light traffic, too: so many bytes of them say nothing.
    const BYTES_FEW: usize = 4 << 10;

    fn take_output(&mut self) -> Box<Output> {
        let Some(buffer) = self.output.pop() else { return Box::default() };
        self.bytes -= buffer.size();
        self.unused = self.unused.min(self.output.len());
        buffer
    }

    fn put_output(&mut self, mut buffer: Box<Output>) {
        debug_assert!(buffer.shared.is_empty() && buffer.shared_len == 0);
        if buffer.shared.capacity() > OutBuf::SLICES_MAX {
            buffer.shared = VecDeque::new();
        }
        if self.has_room(buffer.bytes.capacity(), buffer.size()) {
            buffer.bytes.clear();
            buffer.head = 0;
            self.bytes += buffer.size();
            self.output.push(buffer);
        }
    }

    fn take_input(&mut self) -> Box<Input> {
        let Some(buffer) = self.input.pop() else { return Box::default() };
        self.bytes -= buffer.size();
        buffer
    }

    fn put_input(&mut self, mut buffer: Box<Input>) {
        if self.has_room(buffer.bytes.capacity(), buffer.size()) {
            buffer.bytes.clear();
            (buffer.head, buffer.looked_at) = (0, 0);
            self.bytes += buffer.size();
            self.input.push(buffer);
        }
    }

    fn has_room(&self, capacity: usize, size: usize) -> bool {
        capacity > 0 && capacity <= Pool::CAPACITY_MAX && self.bytes + size <= Pool::BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.output.is_empty() && self.input.is_empty()
    }

    /// Frees the spare buffers that were not needed since the last time; says whether they were most of what there was, and that not
    /// few bytes.
    pub fn trim(&mut self) -> bool {
        let held = self.bytes;
        let kept = self.output.len() - self.unused;
        self.output.drain(kept..);
        self.input = Vec::new();
        self.output.shrink_to(kept);
        self.bytes = self.output.iter().map(|buffer| buffer.size()).sum();
        self.unused = kept;
        let freed = held - self.bytes;
        freed >= Pool::BYTES_FEW && freed >= self.bytes
    }
}

/// Input that could not be used up yet: the beginning of a packet, or whole packets of a paused link.
#[derive(Default)]
pub struct InBuf(Option<Box<Input>>);

#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    head: usize,
    /// Bytes behind `head` that were looked at ahead of their turn.
    looked_at: usize,
}

impl Input {
    /// What it takes of memory.
    fn size(&self) -> usize {
        size_of::<Input>() + self.bytes.capacity()
    }
}

impl InBuf {
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |input| &input.bytes[input.head..])
    }

    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Appends `more`. Grows by what has arrived, never by what a peer announced.
    pub fn append(&mut self, more: &[u8], pool: &mut Pool) {
        if more.is_empty() {
            return;
        }
        let input = self.0.get_or_insert_with(|| pool.take_input());
        if input.head > 0 && input.bytes.len() + more.len() > input.bytes.capacity() {
            input.bytes.drain(..input.head);
            input.head = 0;
        }
        let room = input.bytes.capacity() - input.bytes.len();
        if more.len() > room && input.bytes.len() >= LARGE_LEN {
            // Not twice as much, as a Vec would: a large packet is not to take much more than it is long.
            input.bytes.reserve_exact(more.len().max(input.bytes.len() / 4));
        }
        input.bytes.extend_from_slice(more);
    }

    /// Forgets the first `count` bytes; an empty buffer goes back to the pool.
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        let Some(input) = self.0.as_deref_mut() else { return };
        input.head += count;
        input.looked_at = input.looked_at.saturating_sub(count);
        if input.head >= input.bytes.len()
            && let Some(spent) = self.0.take()
        {
            pool.put_input(spent);
        }
    }

    /// Where looking ahead goes on, counted from the first byte.
    /// Takes out the first `len` bytes, a large packet, as the buffer they arrived in.
    pub fn take_packet(&mut self, len: usize) -> Vec<u8> {
        let Some(input) = self.0.as_deref_mut() else { return Vec::new() };
        let mut packet = std::mem::take(&mut input.bytes);
        packet.drain(..input.head);
        input.head = 0;
        input.looked_at = input.looked_at.saturating_sub(len);
        input.bytes.extend_from_slice(&packet[len..]);
        packet.truncate(len);
        if input.bytes.is_empty() {
            self.0 = None;
        }
        packet.shrink_to_fit();
        packet
    }

    /// Puts back what `take_packet` gave.
    pub fn put_back(&mut self, mut packet: Vec<u8>) {
        let input = self.0.get_or_insert_default();
        packet.extend_from_slice(&input.bytes);
        input.bytes = packet;
    }

    pub fn looked_at(&self) -> usize {
        self.0.as_deref().map_or(0, |input| input.looked_at)
    }

    /// Looking ahead went from `looked_at` through `looked` bytes and used up those in `taken` (ascending, within the
    /// looked-at part): they are cut out.
    pub fn cut(&mut self, looked: usize, taken: &[std::ops::Range<usize>], pool: &mut Pool) {
        let Some(input) = self.0.as_deref_mut() else { return };
        let base = input.head;
        let mut write = taken.first().map_or(0, |range| base + range.start);
        for (at, range) in taken.iter().enumerate() {
            let end = taken.get(at + 1).map_or(input.bytes.len(), |next| base + next.start);
            input.bytes.copy_within(base + range.end..end, write);
            write += end - (base + range.end);
        }
        let removed: usize = taken.iter().map(|range| range.len()).sum();
        if removed > 0 {
            input.bytes.truncate(write);
        }
        input.looked_at = looked - removed;
        self.consume(0, pool);
    }
}

/// Output on its way: encoded packets in one buffer, with large payloads between them that many links share.
#[derive(Default)]
pub struct OutBuf(Option<Box<Output>>);

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    head: usize,
    shared: VecDeque<Placed>,
    shared_len: usize,
}

/// A payload that follows the first `at` bytes of the buffer.
struct Placed {
    at: usize,
    data: Shared,
    from: usize,
}

impl OutBuf {
    /// Slices one write takes: the kernel allows 1024, and past some dozens a second write costs less than the list.
    pub const SLICES_MAX: usize = 32;
    /// Bytes of shared payloads one write is offered, about: a message of many megabytes is copied into a socket in parts, and
    /// others have their turn between them.
    const WRITE_LEN: usize = 256 << 10;

    /// Bytes to write.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.as_deref().map_or(0, |output| output.own_len() + output.shared_len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes to write without the shared payloads: what the output itself takes of memory.
    #[inline]
    pub fn own_len(&self) -> usize {
        self.0.as_deref().map_or(0, Output::own_len)
    }

    /// The buffer to append encoded packets to.
    #[inline]
    pub fn tail(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        &mut self.0.get_or_insert_with(|| pool.take_output()).bytes
    }

    /// Appends `data[from..]` without copying it.
    pub fn append_shared(&mut self, data: Shared, from: usize, pool: &mut Pool) {
        if from < data.len() {
            let output = self.0.get_or_insert_with(|| pool.take_output());
            output.shared_len += data.len() - from;
            output.shared.push_back(Placed { at: output.bytes.len(), data, from });
        }
    }

    /// The output if it is in one piece, as most are.
    #[inline]
    pub fn piece(&self) -> Option<&[u8]> {
        let output = self.0.as_deref()?;
        output.shared.is_empty().then(|| &output.bytes[output.head..])
    }

    /// The output as slices for one vectored write, some `WRITE_LEN` bytes at most; an empty list if there is none.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; OutBuf::SLICES_MAX]) -> usize {
        self.0.as_deref().map_or(0, |output| output.slices(slices))
    }

    /// The first `count` bytes were written. An empty buffer goes back to the pool.
    pub fn advance(&mut self, count: usize, pool: &mut Pool) {
        let Some(output) = self.0.as_deref_mut() else { return };
        output.advance(count);
        if output.own_len() + output.shared_len > 0 {
            output.compact();
        } else if let Some(spent) = self.0.take() {
            pool.put_output(spent);
        }
    }
}

impl Output {
    /// What it takes of memory, without the payloads it shares.
    fn size(&self) -> usize {
        size_of::<Output>() + self.bytes.capacity() + self.shared.capacity() * size_of::<Placed>()
    }

    fn own_len(&self) -> usize {
        self.bytes.len() - self.head
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; OutBuf::SLICES_MAX]) -> usize {
        let (mut at, mut count, mut len) = (self.head, 0, 0);
        for shared in &self.shared {
            if shared.at > at && count < OutBuf::SLICES_MAX {
                slices[count] = IoSlice::new(&self.bytes[at..shared.at]);
                at = shared.at;
                count += 1;
            }
            if count == OutBuf::SLICES_MAX {
                return count;
            }
            let rest = &shared.data[shared.from..];
            slices[count] = IoSlice::new(&rest[..rest.len().min(OutBuf::WRITE_LEN)]);
            count += 1;
            len += rest.len();
            if len >= OutBuf::WRITE_LEN {
                return count;
            }
        }
        if at < self.bytes.len() && count < OutBuf::SLICES_MAX {
            slices[count] = IoSlice::new(&self.bytes[at..]);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(shared) = self.shared.front_mut() {
            let own = (shared.at - self.head).min(count);
            self.head += own;
            count -= own;
            let rest = shared.data.len() - shared.from;
            if self.head < shared.at || count < rest {
                shared.from += count;
                self.shared_len -= count;
                return;
            }
            count -= rest;
            self.shared_len -= rest;
            self.shared.pop_front();
        }
        self.head += count;
        debug_assert!(self.head <= self.bytes.len());
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
            out.append_shared(Shared::Copied(payload.clone()), 2, &mut pool);
            out.append_shared(Shared::Copied(payload.clone()), 5, &mut pool);
            out.tail(&mut pool).extend(b" head2 ");
            out.append_shared(Shared::Copied(payload.clone()), 8, &mut pool);
            out.append_shared(Shared::Copied(payload.clone()), 9, &mut pool);
            out.tail(&mut pool).extend(b"!");
            assert_eq!(out.len(), 26);
            assert_eq!(written(&mut out, step), b"head1 PAYLOADLOAD head2 D!", "{step}");
        }
        assert_eq!(Rc::strong_count(&payload), 1);
    }

    #[test]
    fn the_pool_knows_what_it_holds() {
        let mut pool = Pool::default();
        let held = |pool: &Pool| {
            let output: usize = pool.output.iter().map(|buffer| buffer.size()).sum();
            output + pool.input.iter().map(|buffer| buffer.size()).sum::<usize>()
        };
        let (mut out, mut input) = (OutBuf::default(), InBuf::default());
        for round in 0..3 {
            out.tail(&mut pool).extend(vec![7; 3000]);
            input.append(b"the beginning of a packet", &mut pool);
            assert_eq!(pool.bytes, held(&pool), "{round}");
            out.advance(3000, &mut pool);
            input.consume(25, &mut pool);
            assert_eq!(pool.bytes, held(&pool), "{round}");
            assert!(pool.bytes > 3000);
        }
        // One buffer was needed, and then none; neither is much.
        assert!(!pool.trim() && pool.bytes == held(&pool) && !pool.is_empty());
        assert!(!pool.trim() && pool.bytes == 0 && pool.is_empty());
    }

    #[test]
    fn more_payloads_than_slices_are_written_in_several_turns() {
        let payload: Rc<[u8]> = Rc::from(&b"ab"[..]);
        let (mut out, mut pool) = (OutBuf::default(), Pool::default());
        let mut expected = Vec::new();
        for number in 0..100u8 {
            out.tail(&mut pool).push(number);
            out.append_shared(Shared::Copied(payload.clone()), 0, &mut pool);
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
            out.append_shared(Shared::Copied(payload.clone()), 0, &mut pool);
            if out.len() > 1000 {
                out.advance(130, &mut pool);
            }
        }
        let capacity = out.0.as_ref().unwrap().bytes.capacity();
        assert!(capacity < 100_000, "{capacity}");
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
        assert!(out.0.is_none() && input.0.is_none());
        assert_eq!((pool.output.len(), pool.input.len()), (1, 1));
    }

    #[test]
    fn the_pool_keeps_what_is_needed_and_no_more_than_a_megabyte() {
        let mut pool = Pool::default();
        let mut outs: Vec<OutBuf> = (0..400).map(|_| OutBuf::default()).collect();
        outs.iter_mut().for_each(|out| out.tail(&mut pool).extend([0; 4000]));
        outs.iter_mut().for_each(|out| out.advance(4000, &mut pool));
        assert!(pool.bytes <= Pool::BYTES_MAX && (250..262).contains(&pool.output.len()), "{}", pool.output.len());
        // The first trim does not know yet what is needed.
        assert!(!pool.trim());
        for round in 0..3 {
            let mut busy: Vec<OutBuf> = (0..10).map(|_| OutBuf::default()).collect();
            busy.iter_mut().for_each(|out| out.tail(&mut pool).push(1));
            busy.iter_mut().for_each(|out| out.advance(1, &mut pool));
            assert_eq!(pool.trim(), round == 0);
            assert_eq!(pool.output.len(), 10);
        }
        assert!(pool.trim() && pool.is_empty() && pool.bytes == 0);
    }

    #[test]
    fn looking_ahead_cuts_out_what_it_used() {
        let mut pool = Pool::default();
        let mut input = InBuf::default();
        input.append(b"..aaXXbbYYcc", &mut pool);
        input.consume(2, &mut pool);
        input.cut(8, &[2..4, 6..8], &mut pool);
        assert_eq!((input.bytes(), input.looked_at()), (&b"aabbcc"[..], 4));
        input.cut(6, &[], &mut pool);
        assert_eq!((input.bytes(), input.looked_at()), (&b"aabbcc"[..], 6));
        input.consume(3, &mut pool);
        assert_eq!((input.bytes(), input.looked_at()), (&b"bcc"[..], 3));
    }

    #[test]
    fn a_large_payload_is_offered_in_parts() {
        let (mut pool, mut out) = (Pool::default(), OutBuf::default());
        let payload = vec![7; OutBuf::WRITE_LEN + 10];
        out.tail(&mut pool).extend_from_slice(b"head");
        out.append_shared(Shared::Arrived(Rc::new(payload)), 0, &mut pool);
        out.tail(&mut pool).extend_from_slice(b"tail");
        let mut offered = Vec::new();
        while !out.is_empty() {
            let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
            let count = out.slices(&mut slices);
            let lens: Vec<usize> = slices[..count].iter().map(|slice| slice.len()).collect();
            out.advance(lens.iter().sum(), &mut pool);
            offered.push(lens);
        }
        assert_eq!(offered, [vec![4, OutBuf::WRITE_LEN], vec![10, 4]]);
    }
}

//! Memory the process does not need any more, on its way back to the system. It knows allocators' habits, and nothing of what
//! the memory was for.

/// Large blocks are to be mapped by themselves, and so given back when they are freed. glibc does so until the first of them is
/// freed, takes that for a sign that such blocks are wanted often, and from then on keeps them in the middle of its heap;
/// other allocators stay as they are.
pub fn map_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // What it begins with: the buffer that sockets are read into is as large.
        const LARGE: libc::c_int = 128 << 10;
        // SAFETY: it sets a number of the allocator's, whatever that was. If it does not, more memory is kept than need be.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}

/// Asks the allocator to give back what it holds without need. glibc keeps freed memory in the middle of its heap until it is
/// asked; other allocators have no such call and do not need it.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        glibc::empty_cache();
        // SAFETY: it only hands back pages that are not in use, and may be called at any time.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Gives back the pages of a buffer that is kept, whose content does not matter any more: it is zeros then, or what it was.
pub fn give_back_pages(buffer: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: asking for a number has no preconditions.
        let Ok(page_len) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return };
        let before = buffer.as_ptr().align_offset(page_len).min(buffer.len());
        let pages = &mut buffer[before..];
        let len = pages.len() - pages.len() % page_len;
        // SAFETY: whole pages inside a buffer that is borrowed exclusively; private memory reads as zeros afterwards.
        unsafe { libc::madvise(pages.as_mut_ptr().cast(), len, libc::MADV_DONTNEED) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}

/// Gives back the pages of the main thread's stack that deeper calls have left behind: those of a start that took more of it than the
/// program ever will again.
pub fn give_back_stack() {
    #[cfg(target_os = "linux")]
    {
        let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
        let here = 0u8;
        let address = std::hint::black_box(&raw const here).addr();
        // Another thread's is not in the list as a stack.
        let Some(stack) = maps.lines().find_map(stack_range).filter(|stack| stack.contains(&address)) else { return };
        // SAFETY: asking for a number has no preconditions.
        let Ok(page_len) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return };
        // The page of this frame stays, and the next, where what it calls has its own.
        let end = (address - address % page_len).saturating_sub(page_len);
        let start = std::ptr::without_provenance_mut(stack.start);
        // SAFETY: the stack grows down from above `address`, so whole pages below the frames that are in use are of calls that
        // have returned.
        unsafe { libc::madvise(start, end.saturating_sub(stack.start), libc::MADV_DONTNEED) };
    }
}

/// Where the main thread's stack is, if that is what a line of the list of mappings is about.
#[cfg(target_os = "linux")]
fn stack_range(line: &str) -> Option<std::ops::Range<usize>> {
    let (range, _) = line.strip_suffix("[stack]")?.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// glibc's cache of freed chunks, some of each small size, for the thread that freed them. `malloc_trim` does not look into it,
/// and a single chunk in it keeps a page: after a load, a hundred chunks keep some dozens of pages. No call empties it, and
/// a chunk that is taken out of it goes back into it when it is freed, unless it is full of its kind by then.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_void;
    use std::hint::black_box;

    /// What chunks of the cache hold: 24 bytes, 40, 56 and so on. (12, 20, 28 and so on where addresses have 32 bits.)
    const SIZE_MIN: usize = 3 * size_of::<usize>();
    const SIZE_STEP: usize = 2 * size_of::<usize>();
    const SIZE_MAX: usize = SIZE_MIN + 63 * SIZE_STEP;
    /// At least as many as the cache holds of one size: 7 until glibc 2.41, 16 since.
    const COUNT: usize = 16;
    /// Too large for the cache.
    const LARGE: usize = SIZE_MAX + 2 * SIZE_STEP;
    /// What remains of it is too large for the cache, too, when a large chunk is cut off.
    const LARGER: usize = 2 * LARGE + 2 * SIZE_STEP;

    type Chunks = [*mut c_void; COUNT];

    /// Size by size: takes all out, puts chunks of its own in their place, frees what it took, which goes back to the heap
    /// because the cache is full, and takes its own out again. Those are the beginnings of large chunks, so they grow in
    /// place until the cache does not want them. All it does is allocate and free: with a glibc that works otherwise nothing
    /// is gained and nothing lost.
    pub fn empty_cache() {
        for size in (SIZE_MIN..=SIZE_MAX).step_by(SIZE_STEP) {
            // SAFETY: every chunk is replaced by what realloc made of it and freed once; both take null.
            unsafe {
                let taken: Chunks = std::array::from_fn(|_| allocate(size));
                let mut own: Chunks = std::array::from_fn(|_| allocate(LARGER));
                own.iter_mut().for_each(|chunk| *chunk = resize(*chunk, size));
                own.iter().for_each(|&chunk| libc::free(chunk));
                taken.iter().for_each(|&chunk| libc::free(chunk));
                // The last that went in comes out first: it tells how many went in.
                let first = allocate(size);
                let last = own.iter().position(|&chunk| chunk == first).unwrap_or(0);
                own[0] = first;
                own[1..=last].iter_mut().for_each(|chunk| *chunk = allocate(size));
                own[..=last].iter_mut().for_each(|chunk| *chunk = resize(*chunk, LARGE));
                own[..=last].iter().for_each(|&chunk| libc::free(chunk));
            }
        }
    }

    /// Null if there is no memory. What is allocated only to be freed would be left out by the compiler.
    fn allocate(size: usize) -> *mut c_void {
        // SAFETY: malloc takes any size.
        black_box(unsafe { libc::malloc(size) })
    }

    /// The chunk itself if it cannot become so large.
    ///
    /// # Safety
    /// `chunk` is of `allocate` and not used any more, or null.
    unsafe fn resize(chunk: *mut c_void, size: usize) -> *mut c_void {
        // SAFETY: the caller's.
        let resized = unsafe { libc::realloc(chunk, size) };
        black_box(if resized.is_null() { chunk } else { resized })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_stack_is_found_in_the_list_of_mappings() {
        let line = "7ffd89471000-7ffd89492000 rw-p 00000000 00:00 0                          [stack]";
        assert_eq!(stack_range(line), Some(0x7ffd_8947_1000..0x7ffd_8949_2000));
        assert_eq!(stack_range(&line.replace("[stack]", "[heap]")), None);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert_eq!(maps.lines().filter_map(stack_range).count(), 1);
    }

    #[test]
    fn what_is_on_a_stack_in_use_stays() {
        let used = std::hint::black_box([7u8; 5000]);
        give_back_stack();
        assert!(used.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn whole_pages_of_a_buffer_are_given_back_and_nothing_around_it() {
        // SAFETY: asking for a number has no preconditions.
        let page_len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mut memory = vec![1u8; 5 * page_len];
        let first_page = memory.as_ptr().align_offset(page_len);
        for (from, len, given_back) in [
            (first_page, 2 * page_len, Some((first_page, 2 * page_len))),
            (first_page + 1, 2 * page_len, Some((first_page + page_len, page_len))),
            (first_page + 1, page_len, None),
            (first_page, 0, None),
        ] {
            memory.fill(1);
            give_back_pages(&mut memory[from..from + len]);
            let (at, zeros) = given_back.unwrap_or((0, 0));
            assert!(memory[at..at + zeros].iter().all(|&byte| byte == 0));
            assert_eq!(memory.iter().filter(|&&byte| byte == 1).count(), memory.len() - zeros);
        }
    }
}

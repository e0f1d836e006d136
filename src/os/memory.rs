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

/// Gives back the pages of the main thread's stack that deeper calls have left behind.
pub fn give_back_stack() {
    #[cfg(target_os = "linux")]
    {
        let here = 0u8;
        let address = std::hint::black_box(&raw const here).addr();
        // Another thread's is not in the list as a stack.
        let mut stacks = lines_of("/proc/self/maps").filter(|line| line.ends_with("[stack]"));
        let Some((stack, _)) = stacks.next().as_deref().and_then(mapping) else { return };
        if !stack.contains(&address) {
            return;
        }
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

/// Lets go of the pages of files that the process has mapped, its program and libraries, and not written to. What only a start needs
/// is then not counted as the process's own any more, and what is needed again is mapped again from the page cache, in pieces of
/// 64 kB, when it is touched. Pages somebody has written to stay with all that is mapped next to them: relocated addresses, a
/// debugger's breakpoints. Where the kernel does not tell which these are, everything stays.
pub fn give_back_program() {
    #[cfg(target_os = "linux")]
    {
        for range in unwritten(lines_of("/proc/self/smaps")) {
            let start = std::ptr::without_provenance_mut(range.start);
            // SAFETY: pages that are those of the file and cannot be written to: they are the same when they are mapped again.
            unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) };
        }
    }
}

/// The mappings of files that nothing can be and nothing has been written to, of those in the kernel's list.
#[cfg(target_os = "linux")]
fn unwritten(smaps: impl Iterator<Item = String>) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut is_last_found = false;
    for line in smaps {
        if let Some((range, what)) = mapping(&line) {
            is_last_found = is_of_file_to_read(what);
            found.extend(is_last_found.then_some(range));
        } else if is_last_found && is_written(&line) {
            is_last_found = false;
            found.pop();
        }
    }
    found
}

/// Whether a mapping is of a file, and only to be read or run.
#[cfg(target_os = "linux")]
fn is_of_file_to_read(what: &str) -> bool {
    let mut words = what.split_ascii_whitespace();
    matches!(words.next(), Some("r--p" | "r-xp")) && words.nth(2).is_some_and(|inode| inode != "0")
}

/// Whether a line about a mapping counts pages of its own that the process has in place of the file's, in memory or swapped out.
#[cfg(target_os = "linux")]
fn is_written(line: &str) -> bool {
    line.strip_prefix("Anonymous:").or(line.strip_prefix("Swap:")).is_some_and(|count| count.trim() != "0 kB")
}

/// The lines of a list of the kernel's, as far as they can be read: none is held that is not looked at.
#[cfg(target_os = "linux")]
fn lines_of(path: &str) -> impl Iterator<Item = String> {
    use std::io::BufRead;
    let file = std::fs::File::open(path).map(|file| std::io::BufReader::with_capacity(1024, file));
    file.into_iter().flat_map(|file| file.lines().map_while(Result::ok))
}

/// Where a mapping is, and what the line says after that: access, offset, device, inode and what it is of; nothing if the line is
/// not the first about a mapping.
#[cfg(target_os = "linux")]
fn mapping(line: &str) -> Option<(std::ops::Range<usize>, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?, rest))
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
    fn a_mapping_is_told_from_what_is_said_of_it() {
        let line = "7ffd89471000-7ffd89492000 rw-p 00000000 00:00 0                          [stack]";
        let (range, what) = mapping(line).unwrap();
        assert_eq!(range, 0x7ffd_8947_1000..0x7ffd_8949_2000);
        assert!(what.starts_with("rw-p "));
        for line in ["Size:                132 kB", "VmFlags: rd wr mr mw me gd ac", ""] {
            assert_eq!(mapping(line), None);
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert_eq!(maps.lines().filter_map(mapping).filter(|(_, what)| what.ends_with("[stack]")).count(), 1);
    }

    #[test]
    fn only_mappings_of_files_that_nobody_wrote_to_are_let_go() {
        let mapping = |start: &str, what: &str, anonymous: u32, swapped: u32| {
            format!(
                "{start}000-{start}fff {what}\nSize: 4 kB\nRss: 4 kB\nAnonymous:     {anonymous} kB\nAnonHugePages: 0 kB\n\
                 Swap:     {swapped} kB\nSwapPss: 0 kB\nVmFlags: rd mr mw me\n"
            )
        };
        let smaps = [
            mapping("1", "r--p 00000000 fe:00 12 /usr/sbin/midge", 0, 0),
            mapping("2", "r-xp 00001000 fe:00 12 /usr/sbin/midge", 0, 0),
            mapping("3", "rw-p 00002000 fe:00 12 /usr/sbin/midge", 0, 0),
            // A debugger's breakpoint; an address that was relocated, and swapped out since.
            mapping("4", "r-xp 00003000 fe:00 13 /usr/lib/libc.so.6", 4, 0),
            mapping("5", "r--p 00004000 fe:00 13 /usr/lib/libc.so.6", 0, 4),
            mapping("6", "r--p 00000000 00:00 0 ", 0, 0),
            mapping("7", "r-xp 00000000 00:00 0 [vdso]", 0, 0),
            mapping("8", "r--s 00000000 fe:00 14 /etc/shared", 0, 0),
            mapping("9", "r--p 00000000 fe:00 12 /usr/lib/with spaces in it", 0, 0),
        ];
        let smaps = smaps.concat();
        let found = unwritten(smaps.lines().map(str::to_string));
        assert_eq!(found, [0x1000..0x1fff, 0x2000..0x2fff, 0x9000..0x9fff]);
    }

    #[test]
    fn the_program_goes_on_when_its_pages_are_let_go() {
        let is_own = |range: &std::ops::Range<usize>| range.contains(&(give_back_program as fn() as usize));
        let count = || unwritten(lines_of("/proc/self/smaps")).iter().filter(|range| is_own(range)).count();
        assert_eq!(count(), 1);
        give_back_program();
        assert_eq!(count(), 1);
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

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
#[cfg(target_os = "linux")]
fn give_back_pages(buffer: &mut [u8]) {
    // SAFETY: asking for a number has no preconditions.
    let Ok(page_len) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else { return };
    let before = buffer.as_ptr().align_offset(page_len).min(buffer.len());
    let pages = &mut buffer[before..];
    let len = pages.len() - pages.len() % page_len;
    // SAFETY: whole pages inside a buffer that is borrowed exclusively; private memory reads as zeros afterwards.
    unsafe { libc::madvise(pages.as_mut_ptr().cast(), len, libc::MADV_DONTNEED) };
}

/// Gives back the pages of the main thread's stack that deeper calls have left behind. Never inlined: what a caller still needs is to be
/// above the frame that is looked at, and not somewhere in it. `room` is for what the kernel tells: to allocate would take memory.
#[inline(never)]
pub fn give_back_stack(room: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        let here = 0u8;
        let address = std::hint::black_box(&raw const here).addr();
        // Another thread's is not in the list as a stack.
        let stack = list("/proc/self/maps", room).lines().find(|line| line.ends_with("[stack]")).and_then(Mapping::of);
        let Some(stack) = stack.map(|mapping| mapping.range) else { return };
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
    #[cfg(not(target_os = "linux"))]
    let _ = room;
}

/// Lets go of the pages of the program's file that nobody has written to. What only a start needs is then not counted as the process's
/// own any more, and what is needed again is mapped again from the page cache, in pieces of 64 kB, when it is touched. What was written
/// to stays, with all that is mapped next to it: relocated addresses, a debugger's breakpoints; and so does everything where the kernel
/// does not tell that, or an emulator answers in its place. Libraries stay, too: another thread may be loading one.
/// `room` is for what the kernel tells, and its pages are given back, too. What has no room in it is left alone.
pub fn give_back_program(room: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        let here = give_back_program as fn(&mut [u8]) as usize;
        let (for_maps, for_smaps) = room.split_at_mut(room.len() / 4);
        let (maps, smaps) = (list("/proc/self/maps", for_maps), list("/proc/self/smaps", for_smaps));
        let own = maps.lines().filter_map(Mapping::of).find(|it| it.range.contains(&here) && it.is_of_file());
        let ranges: Vec<_> = own.iter().flat_map(|own| unwritten(own.what, maps, smaps)).collect();
        give_back_pages(room);
        // Last: what runs behind this is mapped again.
        for range in ranges {
            let start = std::ptr::without_provenance_mut(range.start);
            // SAFETY: pages that are those of the program's file and cannot be written to: they are the same when they are mapped
            // again, and nothing else comes to where they are.
            unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = room;
}

/// The mappings of `file` that nothing can be and nothing has been written to, of those that both lists of the kernel's have: the short
/// one and the one that counts pages.
#[cfg(target_os = "linux")]
fn unwritten(file: &str, maps: &str, smaps: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut mapped = None;
    let (mut is_resident, mut is_unwritten) = (false, false);
    smaps.lines().filter_map(move |line| {
        if let Some(Mapping { range, access, what }) = Mapping::of(line) {
            let is_candidate = what == file && matches!(access, "r--p" | "r-xp");
            mapped = (is_candidate && maps.lines().any(|other| other == line)).then_some(range);
            (is_resident, is_unwritten) = (false, false);
            return None;
        }
        // Told in this order: pages in memory; of these, its own copies; copies that were swapped out.
        match line.split_once(':').map(|(name, count)| (name, count.trim())) {
            Some(("Rss", count)) => is_resident = count != "0 kB",
            Some(("Anonymous", count)) => is_unwritten = is_resident && count == "0 kB",
            Some(("Swap", "0 kB")) if is_unwritten => return mapped.take(),
            _ => {}
        }
        None
    })
}

/// A list of the kernel's, as many whole lines of it as can be read and have room.
#[cfg(target_os = "linux")]
fn list<'a>(path: &str, room: &'a mut [u8]) -> &'a str {
    use std::io::Read;
    let mut len = 0;
    if let Ok(mut file) = std::fs::File::open(path) {
        while len < room.len()
            && let Ok(count @ 1..) = file.read(&mut room[len..])
        {
            len += count;
        }
    }
    let whole = room[..len].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    match std::str::from_utf8(&room[..whole]) {
        Ok(lines) => lines,
        // Behind that it is not known what a line is about.
        Err(error) => {
            let lines = std::str::from_utf8(&room[..error.valid_up_to()]).unwrap_or_default();
            &lines[..lines.rfind('\n').map_or(0, |at| at + 1)]
        }
    }
}

/// What the first line about a mapping says.
#[cfg(target_os = "linux")]
struct Mapping<'a> {
    range: std::ops::Range<usize>,
    /// What may be done with it, and whether it is shared.
    access: &'a str,
    /// Device, inode and path, or blanks and a name in brackets after the inode 0.
    what: &'a str,
}

#[cfg(target_os = "linux")]
impl Mapping<'_> {
    /// Nothing if the line is not the first about a mapping.
    fn of(line: &str) -> Option<Mapping<'_>> {
        let mut words = line.splitn(4, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let (access, _offset, what) = (words.next()?, words.next()?, words.next()?);
        Some(Mapping { range, access, what })
    }

    fn is_of_file(&self) -> bool {
        self.what.split_ascii_whitespace().nth(1).is_some_and(|inode| inode != "0")
    }
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
        let mapping = Mapping::of(line).unwrap();
        assert_eq!((mapping.range.clone(), mapping.access), (0x7ffd_8947_1000..0x7ffd_8949_2000, "rw-p"));
        assert!(!mapping.is_of_file());
        for line in ["Size:                132 kB", "VmFlags: rd wr mr mw me gd ac", ""] {
            assert!(Mapping::of(line).is_none());
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert_eq!(maps.lines().filter_map(Mapping::of).filter(|mapping| mapping.what.ends_with("[stack]")).count(), 1);
    }

    #[test]
    fn only_pages_of_the_program_that_nobody_wrote_to_are_let_go() {
        let record = |start: &str, what: &str, counts: &[(&str, u32)]| {
            let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name}:     {count} kB")).collect();
            format!("{start}000-{start}fff {what}\nSize: 4 kB\n{}\nVmFlags: rd mr mw me\n", counts.join("\n"))
        };
        let clean = [("Rss", 4), ("Anonymous", 0), ("AnonHugePages", 0), ("Swap", 0), ("SwapPss", 0)];
        let own = "fe:00 12 /usr/sbin/a midge";
        let records = [
            record("1", &format!("r--p 00000000 {own}"), &clean),
            record("2", &format!("r-xp 00001000 {own}"), &clean),
            record("3", &format!("rw-p 00002000 {own}"), &clean),
            // A debugger's breakpoint; an address that was relocated, and swapped out since.
            record("4", &format!("r-xp 00003000 {own}"), &[("Rss", 4), ("Anonymous", 4), ("Swap", 0)]),
            record("5", &format!("r--p 00004000 {own}"), &[("Rss", 4), ("Anonymous", 0), ("Swap", 4)]),
            // Lists of those who do not know.
            record("6", &format!("r--p 00005000 {own}"), &[("Rss", 0), ("Anonymous", 0), ("Swap", 0)]),
            record("7", &format!("r--p 00006000 {own}"), &[("Rss", 4), ("Swap", 0)]),
            record("8", &format!("r--p 00007000 {own}"), &[("Rss", 4), ("Anonymous", 0)]),
            record("9", "r-xp 00000000 fe:00 13 /usr/lib/libc.so.6", &clean),
            record("a", "r--p 00000000 00:00 0 ", &clean),
            record("b", "r--s 00000000 fe:00 12 /usr/sbin/a midge", &clean),
            record("c", &format!("r--p 00008000 {own}"), &clean),
        ];
        let smaps = records.concat();
        let found = |maps: &str, smaps: &str| unwritten(own, maps, smaps).collect::<Vec<_>>();
        assert_eq!(found(&smaps, &smaps), [0x1000..0x1fff, 0x2000..0x2fff, 0xc000..0xcfff]);
        // The lists are of two processes: of an emulator, and of what it runs.
        assert_eq!(found(&records[0], &smaps), found(&smaps, &smaps)[..1]);
        assert_eq!(found("", &smaps), []);
        for len in 0..records[0].find("Swap:").unwrap() {
            assert_eq!(found(&smaps, &smaps[..len]), [], "cut off");
        }
    }

    #[test]
    fn a_list_has_as_many_whole_lines_as_there_is_room_for() {
        let path = std::env::temp_dir().join(format!("midge-list-{}", std::process::id()));
        for (content, room, lines) in [
            (&b"ab\nc\n"[..], 5, "ab\nc\n"),
            (b"ab\nc\n", 4, "ab\n"),
            (b"ab\nc\n", 2, ""),
            (b"ab\nc", 10, "ab\n"),
            (b"ab\nc\xff\nd\n", 10, "ab\n"),
            (b"\xff\nd\n", 10, ""),
            (b"", 10, ""),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(list(path.to_str().unwrap(), &mut vec![0; room]), lines, "{content:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(list(path.to_str().unwrap(), &mut [0; 10]), "");
    }

    #[test]
    fn the_program_goes_on_when_its_pages_are_let_go() {
        let own = give_back_program as fn(&mut [u8]) as usize;
        let mut room = vec![0; 1 << 20];
        let resident_kb = |room: &mut [u8]| {
            let mut lines = list("/proc/self/smaps", room)
                .lines()
                .skip_while(|line| Mapping::of(line).is_none_or(|mapping| !mapping.range.contains(&own)))
                .skip(1);
            let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
            rss.trim().trim_end_matches(" kB").parse::<u32>().unwrap()
        };
        let before = resident_kb(&mut room);
        let mut given_back_kb = || {
            give_back_program(&mut room);
            resident_kb(&mut room)
        };
        // Others run in it meanwhile.
        let least = (0..100).map(|_| given_back_kb()).min().unwrap();
        assert!((1..before).contains(&least), "{least} of {before} kB");
    }

    #[test]
    fn what_is_on_a_stack_in_use_stays() {
        let used = std::hint::black_box([7u8; 5000]);
        give_back_stack(&mut [0; 20_000]);
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

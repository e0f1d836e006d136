//! What the allocator keeps of freed memory, in a process of its own, where nobody else allocates meanwhile.

/// glibc counts what its cache of small chunks holds as in use.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn freed_chunks_of_every_size_go_back_to_the_heap() {
    /// What is over from cutting chunks to size may be left in the cache: one or two small ones.
    const LEFT_MAX: usize = 512;

    // SAFETY: it reads the allocator's own counts.
    let bytes_in_use = || unsafe { libc::mallinfo2() }.uordblks;
    let fill_the_cache = || {
        let chunks: Vec<Vec<u8>> = (0..20 * 1024).map(|number| Vec::with_capacity(1 + number % 1024)).collect();
        drop(std::hint::black_box(chunks));
    };
    midge::os::give_back_memory();
    let before = bytes_in_use();
    for _ in 0..3 {
        fill_the_cache();
        let cached = bytes_in_use() - before;
        assert!(cached > 100_000, "the test does not fill the cache: {cached}");
        midge::os::give_back_memory();
        let left = bytes_in_use().saturating_sub(before);
        assert!(left <= LEFT_MAX, "{left} of {cached} bytes are left in the cache");
    }
}

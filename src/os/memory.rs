//! Memory the process does not need any more, on its way back to the system.

/// Asks the allocator to give back what it holds without need. glibc keeps freed memory in the middle of its heap until it is
/// asked; other allocators have no such call and do not need it.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim only hands back pages that are not in use; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

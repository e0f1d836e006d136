//! How much memory is allocated, counted where it is: the system's allocator, with a sum. What a ceiling over all memory is
//! measured by; a few instructions an allocation, and the message path at QoS 0 has none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What an allocator needs besides what it was asked for, about.
const OVERHEAD: usize = 2 * size_of::<usize>();

/// Counts on behalf of the system's allocator. To be declared `#[global_allocator]` by the program.
pub struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Bytes allocated now; 0 if the program does not count.
pub fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

// SAFETY: all it does besides counting is to call the system's allocator with what it was given.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() + OVERHEAD, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() + OVERHEAD, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() + OVERHEAD, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size, Ordering::Relaxed);
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes of memory this process may use: the machine's, or what its control group allows if that is less.
pub fn memory_of_machine() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(mem_total);
    let group = fs::read_to_string("/proc/self/cgroup").ok().as_deref().and_then(group_limit);
    machine.into_iter().chain(group).min()
}

/// The first number of `MemTotal:      48123456 kB`.
fn mem_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The smallest limit of the process's control group and those above it. Version 2: `0::/path`; version 1:
/// `5:memory:/path`.
fn group_limit(text: &str) -> Option<u64> {
    text.lines().filter_map(group_of).filter_map(|(root, path, file)| limit_on_the_way(root, path, file)).min()
}

/// Where the limits of a line's group are.
fn group_of(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let (number, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    if number == "0" && controllers.is_empty() {
        return Some(("/sys/fs/cgroup", path, "memory.max"));
    }
    let is_memory = controllers.split(',').any(|controller| controller == "memory");
    is_memory.then_some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
}

fn limit_on_the_way(root: &str, path: &str, file: &str) -> Option<u64> {
    let (mut path, mut least) = (path.trim_end_matches('/'), None::<u64>);
    loop {
        // `max` is no number, and no limit.
        let limit = fs::read_to_string(format!("{root}{path}/{file}")).ok().and_then(|text| text.trim().parse().ok());
        least = least.into_iter().chain(limit).min();
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => return least,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(mem_total("MemTotal:       48123456 kB\nMemFree: 1 kB\n"), Some(48_123_456 * 1024));
        assert_eq!(mem_total("nothing"), None);
        assert!(memory_of_machine().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn control_groups_of_both_versions_are_found() {
        assert_eq!(group_of("0::/system.slice/midge"), Some(("/sys/fs/cgroup", "/system.slice/midge", "memory.max")));
        let first = Some(("/sys/fs/cgroup/memory", "/docker/x", "memory.limit_in_bytes"));
        assert_eq!(group_of("5:cpu,memory:/docker/x"), first);
        assert_eq!(group_of("6:freezer:/docker/x"), None);
        assert_eq!(group_of(""), None);
    }

    #[test]
    fn counting_follows_what_is_allocated() {
        // SAFETY: the layout is not empty, and the chunk is freed with the layout it has by then.
        unsafe {
            let layout = Layout::from_size_align_unchecked(1000, 8);
            let before = allocated();
            let pointer = Counting.alloc(layout);
            assert_eq!(allocated() - before, 1000 + OVERHEAD);
            let pointer = Counting.realloc(pointer, layout, 3000);
            assert_eq!(allocated() - before, 3000 + OVERHEAD);
            Counting.dealloc(pointer, Layout::from_size_align_unchecked(3000, 8));
            let zeroed = Counting.alloc_zeroed(layout);
            Counting.dealloc(zeroed, layout);
            assert_eq!(allocated(), before);
        }
    }
}

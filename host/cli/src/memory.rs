//! How this process uses memory.

/// Turns transparent huge pages off for this process and its children.
///
/// The allocator asks for huge pages. With them, the kernel clears 2 MiB whenever a small part of
/// them is used for the first time. A projection host allocates and frees memory in many places, so
/// the clearing takes more time than large pages save. Without them, the benchmark W1
/// (`bench/RESULTS.md`) takes a fifth less CPU time and memory.
///
/// Systems other than Linux have no such switch.
pub fn without_huge_pages() {
    // An old kernel refuses. Then the process is slower, and nothing else changes.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

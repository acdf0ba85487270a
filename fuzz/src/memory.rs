//! Takes no more memory at a time than any honest input needs. The sanitizers could do that, but want the nightly toolchain.

use std::alloc::{GlobalAlloc, Layout, System};

/// A block of a table may say that it has 112 MiB, and what prepares it adds to it.
const MOST: usize = 160 << 20;

struct Bounded;

#[global_allocator]
static MEMORY: Bounded = Bounded;

fn check(bytes: usize) {
    if bytes > MOST {
        // Whoever asks cannot be told: an allocator must not panic.
        eprintln!("{bytes} bytes of memory are asked for at once");
        std::process::abort();
    }
}

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

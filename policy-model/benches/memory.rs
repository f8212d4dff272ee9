//! How much memory ten thousand rules need, once compiled and while they are.

mod rules;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use portreeve_policy::{Directory, Endpoint, EndpointPolicy, Options, Repository, Source};

use self::rules::{Mix, document};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator unchanged; counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    println!("{:14} {:>10} {:>10} {:>10}", "10,000 rules", "rules MiB", "policy MiB", "peak MiB");
    for mix in Mix::ALL {
        let text = document(mix, 10_000);
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let Ok(repository) = Repository::parse([Source::new("bench.yaml", text)]) else { continue };
        let read = LIVE.load(Ordering::Relaxed) - before;
        let shop = Endpoint::new("shop", "default", "app=shop".parse().unwrap_or_default());
        let (directory, options) = (Directory::default(), Options::default());
        let policy = EndpointPolicy::resolve(&repository, &shop, &directory, &options);
        let compiled = LIVE.load(Ordering::Relaxed) - before - read;
        let mib = |bytes: usize| f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0;
        let peak = PEAK.load(Ordering::Relaxed) - before;
        println!("{:14} {:10.1} {:10.1} {:10.1}", mix.name(), mib(read), mib(compiled), mib(peak));
        drop(policy);
    }
}

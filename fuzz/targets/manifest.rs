//! See `fuzz::manifest`.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| fuzz::manifest::run(data));
fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    // It does not take what has no room at all.
    let mut plain = |data: &mut [u8], size, most| if most == 0 { 0 } else { fuzzer_mutate(data, size, most) };
    fuzz::manifest::mutate(data, size, most, seed, &mut plain)
});

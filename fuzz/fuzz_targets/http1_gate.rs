//! Runs [`portreeve_protocols::http1::fuzz::http1_gate`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_protocols::http1::fuzz::http1_gate(data));

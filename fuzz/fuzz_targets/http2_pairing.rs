//! Runs [`portreeve_core::fuzz::http2_pairing`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_core::fuzz::http2_pairing(data));

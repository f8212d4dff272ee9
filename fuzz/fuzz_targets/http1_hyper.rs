//! Runs [`portreeve_tests::hyper_oracle::http1_hyper`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_tests::hyper_oracle::http1_hyper(data));

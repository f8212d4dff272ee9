//! Runs [`portreeve_tests::kafka_oracle::kafka_oracle`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_tests::kafka_oracle::kafka_oracle(data));

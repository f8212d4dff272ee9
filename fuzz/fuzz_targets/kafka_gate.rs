//! Runs [`portreeve_protocols::kafka::fuzz::kafka_gate`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_protocols::kafka::fuzz::kafka_gate(data));

//! Runs [`portreeve_policy::fuzz::policy_http_rules`], which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portreeve_policy::fuzz::policy_http_rules(data));

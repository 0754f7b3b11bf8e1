//! `fuzz_targets::proxy_protocol` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::proxy_protocol(data));

#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| postrider_transports::fuzzing::http_head(data));

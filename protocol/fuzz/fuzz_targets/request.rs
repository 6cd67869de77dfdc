#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| metaq_protocol::fuzz_entry::request(bytes));

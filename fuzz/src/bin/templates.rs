//! Looks for inputs that break [`quarterdeck_fuzz::templates`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quarterdeck_fuzz::templates(bytes));

//! Looks for inputs that break [`quarterdeck_fuzz::parameters`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quarterdeck_fuzz::parameters(bytes));

//! Looks for inputs that break [`quarterdeck_fuzz::manifests`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quarterdeck_fuzz::manifests(bytes));

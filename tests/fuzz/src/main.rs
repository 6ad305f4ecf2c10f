//! The program that libFuzzer drives: its own options and folders as arguments, the target's name in
//! `SEE_FUZZ_TARGET`. `cargo xtask fuzz` builds and runs it.

#![no_main]

use std::sync::LazyLock;

static READ: LazyLock<fn(&[u8]) -> bool> = LazyLock::new(|| {
    let name = std::env::var("SEE_FUZZ_TARGET").unwrap_or_default();
    let target = see_fuzz::target(&name).unwrap_or_else(|| {
        let known = see_fuzz::TARGETS.map(|target| target.name).join(", ");
        panic!("SEE_FUZZ_TARGET is `{name}`; there are {known}")
    });
    target.read
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    READ(bytes);
});

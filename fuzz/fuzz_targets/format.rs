//! `format.json`, the first object that is read of a repository; and the names of objects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::repository::format::Format;
use revenant::repository::layout;

fuzz_target!(|bytes: &[u8]| {
    let _ = Format::parse(bytes);
    if let Ok(key) = std::str::from_utf8(bytes) {
        let _ = layout::parse_claim(key);
        let _ = layout::parse_save(key);
        let _ = layout::parse_pack(key);
        let _ = layout::parse_index(key);
        let _ = layout::parse_manifest(key);
    }
});

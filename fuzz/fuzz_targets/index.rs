//! An index, opened already: what is in it must be bounded by its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::repository::index::Index;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = Index::decode(bytes) {
        // What is understood is written as it was understood.
        assert_eq!(Index::decode(&index.encode()).as_ref(), Ok(&index));
    }
});

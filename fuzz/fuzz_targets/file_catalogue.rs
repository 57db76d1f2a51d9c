//! The list of files that travel with a checkpoint: no path of it may lead out of its root.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::checkpoint::files::Catalogue;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(catalogue) = Catalogue::from_json(bytes) {
        for entry in &catalogue.entries {
            assert!(!entry.path.to_string().split('/').any(|part| part == ".."));
        }
    }
});

//! What comes through the image streamer's socket.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(name)) = revenant::criu::stream::read_request(&mut rest) {
        assert!(!name.is_empty() && !name.contains('/') && name != "..");
    }
});

//! A line on the control socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::supervisor::control::Question;

fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<Question>(bytes);
});

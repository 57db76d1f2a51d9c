//! A leaf of a recipe.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = revenant::repository::recipe::decode(bytes);
});

//! A manifest as it comes from the store: the frame of arbitrary bytes, then arbitrary content under a frame that is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::checkpoint::record::Record;
use revenant::job::{Epoch, Generation};
use revenant::repository::crypto::{Crypt, RepositoryId};
use revenant::repository::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let crypt = Crypt::unencrypted(RepositoryId([7; 16]));
    let generation = Generation { epoch: Epoch(1), sequence: 1 };
    let _ = Manifest::open(bytes, generation, &crypt);
    // No digest stands in the way of the parser behind it.
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
        let _ = serde_json::from_value::<Manifest>(value.clone());
        let _ = Record::from_json(&value);
    }
});

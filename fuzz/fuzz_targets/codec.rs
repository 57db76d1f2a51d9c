//! A stored chunk and the plain length that somebody claims for it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::repository::codec::Decompressor;

fuzz_target!(|input: (u16, &[u8])| {
    let (length, stored) = input;
    let mut plain = vec![0; usize::from(length)];
    if let Ok(mut decompressor) = Decompressor::new() {
        let _ = decompressor.decompress(stored, &mut plain);
    }
});

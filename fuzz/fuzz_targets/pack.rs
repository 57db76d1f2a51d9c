//! A pack: arbitrary bytes, and an arbitrary footer under a seal that is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::repository::crypto::{Crypt, ObjectId, ObjectKind, RepositoryId};
use revenant::repository::pack;

fuzz_target!(|bytes: &[u8]| {
    let crypt = Crypt::unencrypted(RepositoryId([7; 16]));
    let id = ObjectId([9; 32]);
    let _ = pack::check(&crypt, &id, &mut bytes.to_vec(), |_, _| {});
    let mut footer = bytes.to_vec();
    crypt.for_object(ObjectKind::Pack, &id).seal(u64::MAX, &[], &mut footer);
    let start = pack::HEADER as u64;
    let _ = pack::open_footer(&crypt, &id, &(start..start + footer.len() as u64), footer);
});

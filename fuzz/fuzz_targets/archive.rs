//! An archive to import: arbitrary bytes, and arbitrary members under names, lengths and digests that are right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::checkpoint::protocol::Holder;
use revenant::repository::archive::{self, ImportTerms};
use revenant::repository::claim::Terms;
use revenant::store::Store;
use std::io::Cursor;
use std::time::Duration;

/// Where a member may lie; the fuzzer chooses.
const NAMES: [&str; 8] = [
    "revenant-export.json",
    "format.json",
    "started.json",
    "keys/00000000000000000000000000000000.json",
    "index/abababababababababababababababababababababababababababababababab",
    "packs/ab/abababababababababababababababababababababababababababababababab",
    "generations/00000000000000000001-00000000000000000001.manifest",
    "SHA256SUMS",
];

fuzz_target!(|input: (&[u8], Vec<(u8, Vec<u8>)>)| {
    let (raw, members) = input;
    import(raw.to_vec());
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in &members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        let path = format!("job/{}", NAMES[usize::from(*name) % NAMES.len()]);
        if tar.append_data(&mut header, path, bytes.as_slice()).is_err() {
            return;
        }
    }
    import(tar.into_inner().unwrap_or_default());
});

fn import(bytes: Vec<u8>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let terms = ImportTerms {
        job: None,
        key: None,
        holder: Holder { host: "importer".to_owned(), pod_uid: None, instance: "i".to_owned() },
        terms: Terms { lease: Duration::from_millis(300), takeover: false },
    };
    let _ = runtime.block_on(archive::import(&Store::memory(), Cursor::new(bytes), &terms, |_, _| {}));
}

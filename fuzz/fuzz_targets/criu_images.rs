//! CRIU's images, as they come back from a store.
#![no_main]

use libfuzzer_sys::fuzz_target;
use revenant::criu::images;

fuzz_target!(|bytes: &[u8]| {
    let _ = images::inventory(bytes);
    let _ = images::pstree(bytes);
    let _ = images::files(bytes);
    let _ = images::fdinfo(bytes);
    let _ = images::mm(bytes);
    let _ = images::core(bytes);
    let _ = images::tty_info(bytes);
    let _ = images::dump_stats(bytes);
    if let Ok(pagemap) = images::pagemap(bytes) {
        let _ = pagemap.present_pages();
    }
});

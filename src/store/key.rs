//! Which object keys are allowed: they are path components too, and must never leave their directory.

use super::StoreError;

/// Refuses keys with empty, hidden or parent components, or with characters beyond `[A-Za-z0-9._-]`.
pub(super) fn check(key: &str) -> Result<(), StoreError> {
    let good = key.len() <= 1024
        && key.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        });
    if good { Ok(()) } else { Err(StoreError::InvalidKey { key: key.chars().take(160).collect() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_keys_that_leave_their_directory() {
        for bad in ["", "/", "a//b", "../x", "a/../b", ".hidden", "a/.b", "a b", "a\0", "ä", "a/"] {
            assert!(check(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["format.json", "packs/ab/abcd", "claims/0001.beat"] {
            assert!(check(good).is_ok(), "{good:?} was refused");
        }
    }
}

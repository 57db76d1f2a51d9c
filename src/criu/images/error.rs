//! Why an image was refused.

/// The bytes are not the image that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The first bytes are those of another kind of image, or of none.
    #[error("is no {expected} image (it begins with {found:#010x})")]
    WrongKind {
        /// The kind that was expected.
        expected: &'static str,
        /// What was found in the place of its magic number.
        found: u32,
    },
    /// It ends in the middle of an entry.
    #[error("ends in the middle of an entry, at byte {at}")]
    Truncated {
        /// Offset of the entry.
        at: usize,
    },
    /// An entry claims to be longer than any that CRIU writes.
    #[error("claims an entry of {length} bytes at byte {at}")]
    EntryTooLong {
        /// Offset of the entry.
        at: usize,
        /// The length that it claims.
        length: usize,
    },
    /// An entry is no protobuf of the right kind.
    #[error("has an entry at byte {at} that does not decode: {reason}")]
    Undecodable {
        /// Offset of the entry.
        at: usize,
        /// What the decoder says.
        reason: String,
    },
    /// It has no entry although one is due.
    #[error("is empty")]
    Empty,
}

//! Recognizing a chunk that was seen before in the same save, at a quarter of the cost of its name.
//!
//! What pre-copy read is read again while the workload is frozen, and most of it has not changed. The
//! name of such a chunk (BLAKE3) need not be computed again if it is certain that the bytes are the
//! same. A plain fast hash would not do: whoever chooses the content could choose two chunks that
//! collide, and a checkpoint would restore the wrong one. So this hash is *universal*: its key is
//! random, made for the saves of one container, and known to nobody but them.
//!
//! Of each page of 4096 bytes, with 512 key words k, two independent values are taken:
//!
//! ```text
//! CLNH(page) = ⊕ᵢ (w₂ᵢ ⊕ k₂ᵢ) ⋆ (w₂ᵢ₊₁ ⊕ k₂ᵢ₊₁)        ⋆: product in GF(2)[x], without carries
//! ```
//!
//! For two pages that differ in a word, say w₂ᵢ ≠ w′₂ᵢ, the values are equal only if (w₂ᵢ ⊕ w′₂ᵢ) ⋆ k₂ᵢ₊₁
//! equals something that does not depend on k₂ᵢ₊₁. GF(2)[x] has no zero divisors, so at most one of
//! 2⁶⁴ values of that key word does it: probability 2⁻⁶⁴ (Lemire and Kaser, 2016), and 2⁻¹²⁸ for both
//! values together, their keys being independent. This holds for any two pages that were chosen
//! without knowledge of the key, by an adversary too. BLAKE3 joins the values of a chunk's pages into
//! one fingerprint of 128 bits. With 2²⁵ chunks on either side (1 TB of 32 KiB) the probability that
//! any two different ones are taken for one another is below 2⁻⁷⁰.
//!
//! Where the processor has no carry-less multiplication there is no [`FingerprintKey`], and chunks
//! are named again.
#![allow(unsafe_code)] // Loads of vectors from slices, and the call behind a check of the processor.

use super::block::PAGE;
use std::fmt;
use zeroize::Zeroizing;

/// Words of the key for one value of a page.
const WORDS: usize = PAGE / 8;

/// What stands for a chunk's content within the saves of one container.
pub type Fingerprint = [u64; 2];

/// The secret key of the fingerprints of one container's saves.
pub struct FingerprintKey {
    words: Zeroizing<Vec<u64>>,
    join: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(…)")
    }
}

impl FingerprintKey {
    /// A fresh key; none where the processor cannot multiply without carries.
    pub fn random() -> Option<Self> {
        if !is_supported() {
            return None;
        }
        let words = Zeroizing::new((0..2 * WORDS).map(|_| rand::random()).collect());
        Some(Self { words, join: Zeroizing::new(rand::random()) })
    }

    /// Bytes of [`FingerprintKey::to_bytes`].
    pub const LENGTH: usize = 2 * PAGE + 32;

    /// The key itself: to be shown to nobody.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let words = self.words.iter().flat_map(|word| word.to_le_bytes());
        Zeroizing::new(words.chain(*self.join).collect())
    }

    /// A key that was made here before; none for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, join) = bytes.split_at_checked(2 * PAGE).filter(|_| is_supported())?;
        let (words, _) = words.as_chunks();
        let words = Zeroizing::new(words.iter().map(|word| u64::from_le_bytes(*word)).collect());
        Some(Self { words, join: Zeroizing::new(join.try_into().ok()?) })
    }

    /// The fingerprint of a chunk of whole pages; none for any other.
    pub fn of(&self, chunk: &[u8]) -> Option<Fingerprint> {
        if chunk.is_empty() || !chunk.len().is_multiple_of(PAGE) {
            return None;
        }
        let (first, second) = self.words.split_at(WORDS);
        let mut joined = blake3::Hasher::new_keyed(&self.join);
        for page in chunk.chunks_exact(PAGE) {
            joined.update(&page_value(page, first, second)?);
        }
        let mut words = [0; 16];
        words.copy_from_slice(&joined.finalize().as_bytes()[..16]);
        let whole = u128::from_le_bytes(words);
        #[allow(clippy::cast_possible_truncation)] // The two halves.
        Some([whole as u64, (whole >> 64) as u64])
    }
}

#[cfg(target_arch = "x86_64")]
fn is_supported() -> bool {
    std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_supported() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn page_value(_page: &[u8], _first: &[u64], _second: &[u64]) -> Option<[u8; 32]> {
    None
}

/// Both values of a page. The slices have [`PAGE`] bytes and [`WORDS`] words.
#[cfg(target_arch = "x86_64")]
fn page_value(page: &[u8], first: &[u64], second: &[u64]) -> Option<[u8; 32]> {
    if page.len() != PAGE || first.len() != WORDS || second.len() != WORDS {
        return None;
    }
    let wide = std::arch::is_x86_feature_detected!("vpclmulqdq") && std::arch::is_x86_feature_detected!("avx2");
    let widest = wide && std::arch::is_x86_feature_detected!("avx512f");
    // SAFETY: a key exists only where the processor has the narrow instruction (`FingerprintKey::random`), the wide ones
    // were just looked for, and the lengths were checked.
    Some(unsafe {
        match (widest, wide) {
            (true, _) => multiply_widest(page, first, second),
            (_, true) => multiply_wide(page, first, second),
            _ => multiply(page, first, second),
        }
    })
}

/// The same as [`multiply`], four products at a time.
///
/// # Safety
///
/// `page` must have [`PAGE`] bytes, `first` and `second` [`WORDS`] words each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "vpclmulqdq,pclmulqdq,avx512f,avx2")]
#[allow(clippy::cast_ptr_alignment)] // The loads are unaligned ones.
unsafe fn multiply_widest(page: &[u8], first: &[u64], second: &[u64]) -> [u8; 32] {
    use std::arch::x86_64::{
        __m512i, _mm_storeu_si128, _mm_xor_si128, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_xor_si256,
        _mm512_castsi512_si256, _mm512_clmulepi64_epi128, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
        _mm512_setzero_si512, _mm512_xor_si512,
    };
    let (page, first, second) =
        (page.as_ptr().cast::<__m512i>(), first.as_ptr().cast::<__m512i>(), second.as_ptr().cast::<__m512i>());
    let mut sums = [_mm512_setzero_si512(); 4];
    for pair in (0..PAGE / 64).step_by(2) {
        for lane in 0..2 {
            // SAFETY: `pair + lane` is below PAGE / 64, so 64 bytes lie there in each of the three.
            let (content, one, two) = unsafe {
                (
                    _mm512_loadu_si512(page.add(pair + lane)),
                    _mm512_loadu_si512(first.add(pair + lane)),
                    _mm512_loadu_si512(second.add(pair + lane)),
                )
            };
            let (one, two) = (_mm512_xor_si512(content, one), _mm512_xor_si512(content, two));
            sums[lane] = _mm512_xor_si512(sums[lane], _mm512_clmulepi64_epi128::<0x10>(one, one));
            sums[2 + lane] = _mm512_xor_si512(sums[2 + lane], _mm512_clmulepi64_epi128::<0x10>(two, two));
        }
    }
    let mut out = [0; 32];
    for (half, (one, other)) in out.chunks_exact_mut(16).zip([(sums[0], sums[1]), (sums[2], sums[3])]) {
        let all = _mm512_xor_si512(one, other);
        let both = _mm256_xor_si256(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
        let whole = _mm_xor_si128(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
        // SAFETY: the half has 16 bytes.
        unsafe { _mm_storeu_si128(half.as_mut_ptr().cast(), whole) };
    }
    out
}

/// The same as [`multiply`], two products at a time.
///
/// # Safety
///
/// `page` must have [`PAGE`] bytes, `first` and `second` [`WORDS`] words each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "vpclmulqdq,pclmulqdq,avx2")]
#[allow(clippy::cast_ptr_alignment)] // The loads are unaligned ones.
unsafe fn multiply_wide(page: &[u8], first: &[u64], second: &[u64]) -> [u8; 32] {
    use std::arch::x86_64::{
        __m256i, _mm_storeu_si128, _mm_xor_si128, _mm256_castsi256_si128, _mm256_clmulepi64_epi128,
        _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_setzero_si256, _mm256_xor_si256,
    };
    let (page, first, second) =
        (page.as_ptr().cast::<__m256i>(), first.as_ptr().cast::<__m256i>(), second.as_ptr().cast::<__m256i>());
    let mut sums = [_mm256_setzero_si256(); 4];
    for pair in (0..PAGE / 32).step_by(2) {
        for lane in 0..2 {
            // SAFETY: `pair + lane` is below PAGE / 32, so 32 bytes lie there in each of the three.
            let (content, one, two) = unsafe {
                (
                    _mm256_loadu_si256(page.add(pair + lane)),
                    _mm256_loadu_si256(first.add(pair + lane)),
                    _mm256_loadu_si256(second.add(pair + lane)),
                )
            };
            let (one, two) = (_mm256_xor_si256(content, one), _mm256_xor_si256(content, two));
            sums[lane] = _mm256_xor_si256(sums[lane], _mm256_clmulepi64_epi128::<0x10>(one, one));
            sums[2 + lane] = _mm256_xor_si256(sums[2 + lane], _mm256_clmulepi64_epi128::<0x10>(two, two));
        }
    }
    let mut out = [0; 32];
    for (half, (one, other)) in out.chunks_exact_mut(16).zip([(sums[0], sums[1]), (sums[2], sums[3])]) {
        let both = _mm256_xor_si256(one, other);
        let whole = _mm_xor_si128(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
        // SAFETY: the half has 16 bytes.
        unsafe { _mm_storeu_si128(half.as_mut_ptr().cast(), whole) };
    }
    out
}

/// # Safety
///
/// `page` must have [`PAGE`] bytes, `first` and `second` [`WORDS`] words each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "pclmulqdq,sse2")]
#[allow(clippy::cast_ptr_alignment)] // The loads are unaligned ones.
unsafe fn multiply(page: &[u8], first: &[u64], second: &[u64]) -> [u8; 32] {
    use std::arch::x86_64::{
        __m128i, _mm_clmulepi64_si128, _mm_loadu_si128, _mm_setzero_si128, _mm_storeu_si128, _mm_xor_si128,
    };
    let (page, first, second) =
        (page.as_ptr().cast::<__m128i>(), first.as_ptr().cast::<__m128i>(), second.as_ptr().cast::<__m128i>());
    // Two sums for each value, so that additions need not wait for one another.
    let mut sums = [_mm_setzero_si128(); 4];
    for pair in (0..PAGE / 16).step_by(2) {
        for lane in 0..2 {
            // SAFETY: `pair + lane` is below PAGE / 16, so 16 bytes lie there in each of the three.
            let (content, one, two) = unsafe {
                (
                    _mm_loadu_si128(page.add(pair + lane)),
                    _mm_loadu_si128(first.add(pair + lane)),
                    _mm_loadu_si128(second.add(pair + lane)),
                )
            };
            let (one, two) = (_mm_xor_si128(content, one), _mm_xor_si128(content, two));
            sums[lane] = _mm_xor_si128(sums[lane], _mm_clmulepi64_si128::<0x10>(one, one));
            sums[2 + lane] = _mm_xor_si128(sums[2 + lane], _mm_clmulepi64_si128::<0x10>(two, two));
        }
    }
    let mut out = [0; 32];
    let (low, high) = out.split_at_mut(16);
    // SAFETY: both halves have 16 bytes.
    unsafe {
        _mm_storeu_si128(low.as_mut_ptr().cast(), _mm_xor_si128(sums[0], sums[1]));
        _mm_storeu_si128(high.as_mut_ptr().cast(), _mm_xor_si128(sums[2], sums[3]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(count: usize) -> Vec<u8> {
        (0..count * PAGE).map(|n| u8::try_from((n * n / 7 + n) % 251).unwrap()).collect()
    }

    /// A product in GF(2)[x], bit by bit.
    fn product(a: u64, b: u64) -> u128 {
        (0..64).filter(|bit| b >> bit & 1 == 1).fold(0, |sum, bit| sum ^ (u128::from(a) << bit))
    }

    #[test]
    fn a_pages_values_are_what_the_definition_says() {
        let Some(key) = FingerprintKey::random() else { return };
        let page = pages(1);
        let word = |n: usize| u64::from_le_bytes(page[8 * n..8 * n + 8].try_into().unwrap());
        let (first, second) = key.words.split_at(WORDS);
        let by_hand = |key: &[u64]| {
            (0..WORDS)
                .step_by(2)
                .fold(0, |sum, n| sum ^ product(word(n) ^ key[n], word(n + 1) ^ key[n + 1]))
                .to_le_bytes()
        };
        let expected = [by_hand(first), by_hand(second)].concat();
        assert_eq!(page_value(&page, first, second).unwrap().as_slice(), expected);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: there is a key, so there is the instruction; the lengths are those of a page.
        assert_eq!(unsafe { multiply(&page, first, second) }.as_slice(), expected, "on older processors");
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("vpclmulqdq") && std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the instructions were looked for; the lengths are those of a page.
            assert_eq!(unsafe { multiply_wide(&page, first, second) }.as_slice(), expected, "without AVX-512");
        }
    }

    #[test]
    fn every_changed_byte_and_every_order_of_pages_shows() {
        let Some(key) = FingerprintKey::random() else { return };
        let chunk = pages(2);
        let same = key.of(&chunk).unwrap();
        assert_eq!(key.of(&chunk.clone()), Some(same));
        for place in (0..chunk.len()).step_by(61) {
            let mut other = chunk.clone();
            other[place] ^= 1 << (place % 8);
            assert_ne!(key.of(&other), Some(same), "byte {place}");
        }
        let swapped = [&chunk[PAGE..], &chunk[..PAGE]].concat();
        assert_ne!(key.of(&swapped), Some(same));
        assert_ne!(key.of(&chunk[..PAGE]), Some(same));
    }

    #[test]
    fn a_key_that_is_kept_gives_the_same_fingerprints() {
        let Some(key) = FingerprintKey::random() else { return };
        let bytes = key.to_bytes();
        assert_eq!(bytes.len(), FingerprintKey::LENGTH);
        assert_eq!(FingerprintKey::from_bytes(&bytes).unwrap().of(&pages(3)), key.of(&pages(3)));
        assert!(FingerprintKey::from_bytes(&bytes[1..]).is_none());
    }

    #[test]
    fn another_key_gives_another_fingerprint() {
        let (Some(one), Some(other)) = (FingerprintKey::random(), FingerprintKey::random()) else { return };
        assert_ne!(one.of(&pages(1)), other.of(&pages(1)));
        assert_eq!(one.of(&pages(1)[..100]), None, "only whole pages have one");
    }
}

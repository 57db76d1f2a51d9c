//! Reading and writing the numbers of the binary formats, with limits before allocation.

/// Bytes that do not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Appends a number in LEB128: seven bits a byte, low bits first, the high bit says "more".
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Reads a format from front to back. Every read is checked against what is left.
#[derive(Debug, Clone)]
pub struct Wire<'a> {
    rest: &'a [u8],
}

impl<'a> Wire<'a> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Malformed("ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    /// The next LEB128 number. Only its shortest spelling is accepted, so that one value has one form.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed("holds a number beyond 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(Malformed("spells a number too long")) } else { Ok(value) };
            }
        }
        Err(Malformed("holds a number beyond 64 bits"))
    }

    /// The next number, if it is at most `limit`.
    pub fn varint_to(&mut self, limit: u64) -> Result<u64, Malformed> {
        let value = self.varint()?;
        if value <= limit { Ok(value) } else { Err(Malformed("holds a number beyond its limit")) }
    }

    /// The next number, as a 32-bit one.
    pub fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("holds a number beyond 32 bits"))
    }

    /// A count of items that take at least `least` bytes each: refused when they cannot be there.
    pub fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).map_err(|_| Malformed("promises too many items"))?;
        if count <= self.rest.len() / least.max(1) { Ok(count) } else { Err(Malformed("promises too many items")) }
    }

    /// That nothing is left.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("has bytes after its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut wire = Wire::new(&out);
            prop_assert_eq!(wire.varint(), Ok(value));
            prop_assert!(wire.end().is_ok());
        }

        #[test]
        fn one_value_has_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut wire = Wire::new(&bytes);
            if let Ok(value) = wire.varint() {
                let mut again = Vec::new();
                put_varint(&mut again, value);
                prop_assert!(bytes.starts_with(&again));
            }
        }
    }

    #[test]
    fn counts_are_limited_by_what_is_there() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        bytes.extend([0; 100]);
        assert!(Wire::new(&bytes).count(1).is_err());
        assert_eq!(Wire::new(&[2, 0, 0, 0]).count(2), Err(Malformed("promises too many items")));
        assert_eq!(Wire::new(&[1, 0, 0, 0]).count(2), Ok(1));
    }
}

//! Reads numbers and bytes, little-endian, for the formats of this crate.

/// Reads values from the front of some bytes. Returns `None` if too few bytes are left.
pub(crate) struct Reader<'a>(&'a [u8]);

macro_rules! numbers {
    ($($name:ident),*) => {$(
        pub(crate) fn $name(&mut self) -> Option<$name> {
            let (bytes, rest) = self.0.split_first_chunk()?;
            self.0 = rest;
            Some($name::from_le_bytes(*bytes))
        }
    )*};
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    numbers!(u8, u16, u32, u64, i64);

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends the CRC-32 of `bytes` to them.
pub(crate) fn append_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// Removes the checksum that [`append_checksum`] has added; `None` if it does not match the bytes.
pub(crate) fn verify_checksum(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, crc) = bytes.split_last_chunk()?;
    (crc32fast::hash(bytes) == u32::from_le_bytes(*crc)).then_some(bytes)
}

/// `value` as a number of 32 bits.
///
/// # Panics
/// Panics if `value` does not fit. Callers limit it far below.
pub(crate) fn u32_of(value: usize) -> u32 {
    u32::try_from(value).expect("chunks and counts stay far below 4 GiB")
}

//! Little-endian bytes: checked reading, plain writing.
//!
//! Every on-disk structure is decoded through [`Reader`], which returns `None` instead of reading past
//! the end, so a damaged length can never become a panic. The caller turns `None` into `Corrupt`,
//! because only it knows file and offset.

/// Reads fields off the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether everything has been read.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `len` bytes, or `None` when fewer are left.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(len)?;
        self.bytes = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = tail;
        Some(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Two bytes of length, then that many bytes.
    pub fn short_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Four bytes of length, then that many bytes.
    pub fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }
}

/// Appends fields to a byte vector.
pub trait Writer {
    /// Appends `bytes` as they are.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one byte.
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Appends two bytes.
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    /// Appends four bytes.
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// Appends two bytes of length and `bytes`. Panics when `bytes` is longer than `u16::MAX`.
    fn put_short_bytes(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).expect("caller keeps short fields below 64 KiB");
        self.put_u16(len);
        self.put(bytes);
    }

    /// Appends four bytes of length and `bytes`. Panics when `bytes` is longer than `u32::MAX`.
    fn put_long_bytes(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("caller keeps long fields below 4 GiB");
        self.put_u32(len);
        self.put(bytes);
    }
}

impl Writer for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_come_back_in_order() {
        let mut bytes = Vec::new();
        bytes.put_u8(1);
        bytes.put_u16(0x0203);
        bytes.put_u32(0x0405_0607);
        bytes.put_u64(0x0809_0a0b_0c0d_0e0f);
        bytes.put_short_bytes(b"ab");
        bytes.put_long_bytes(b"c");
        let golden = [
            &[1, 3, 2, 7, 6, 5, 4, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8][..],
            &[2, 0, b'a', b'b', 1, 0, 0, 0, b'c'],
        ];
        assert_eq!(bytes, golden.concat());

        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Some(1));
        assert_eq!(reader.u16(), Some(0x0203));
        assert_eq!(reader.u32(), Some(0x0405_0607));
        assert_eq!(reader.u64(), Some(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(reader.short_bytes(), Some(&b"ab"[..]));
        assert_eq!((reader.is_empty(), reader.rest().len()), (false, 5));
        assert_eq!(reader.long_bytes(), Some(&b"c"[..]));
        assert!(reader.is_empty());
    }

    #[test]
    fn reading_past_the_end_is_none_and_takes_nothing() {
        let bytes = [1, 2, 3];
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u32(), reader.u64(), reader.take(4)), (None, None, None));
        assert_eq!(reader.rest(), bytes);
        assert_eq!(reader.take(3), Some(&bytes[..]));
        assert_eq!((reader.u8(), reader.u16(), reader.take(0)), (None, None, Some(&[][..])));
    }

    #[test]
    fn a_damaged_length_is_none() {
        assert_eq!(Reader::new(&[3, 0, 1, 2]).short_bytes(), None);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).long_bytes(), None);
    }

    #[test]
    #[should_panic(expected = "below 64 KiB")]
    fn a_short_field_has_a_limit() {
        Vec::new().put_short_bytes(&vec![0; 1 << 16]);
    }
}

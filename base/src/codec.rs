//! Little-endian bytes: checked reading, plain writing.
//!
//! Every on-disk structure is decoded through [`Reader`], which returns `None` instead of reading past
//! the end, so a damaged length can never become a panic. The caller turns `None` into `Corrupt`,
//! because only it knows file and offset.

/// Most bytes of a varint.
pub const VARINT_BYTES_MAX: usize = 10;

/// Reads fields off the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been read yet.
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether everything has been read.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `len` bytes, or `None` when fewer are left.
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(len)?;
        self.bytes = tail;
        Some(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = tail;
        Some(*head)
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// The next two bytes.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number in as many bytes as it needs, seven bits each, the lowest first; `None` also for a spelling that
    /// is longer than need be.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        // Most are short: lengths, page ids, numbers of transactions, words of an LSN.
        let (value, rest) = match *self.bytes {
            [a @ 0..0x80, ref rest @ ..] => (u64::from(a), rest),
            [a, b @ 1..0x80, ref rest @ ..] => (groups([a, b, 0, 0]), rest),
            [a, b @ 0x80..=0xff, c @ 1..0x80, ref rest @ ..] => (groups([a, b, c, 0]), rest),
            [a, b @ 0x80..=0xff, c @ 0x80..=0xff, d @ 1..0x80, ref rest @ ..] => {
                (groups([a, b, c, d]), rest)
            }
            _ => return self.long_varint(),
        };
        self.bytes = rest;
        Some(value)
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, byte) in self.bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
            let (bits, shift) = (u64::from(byte & 0x7f), 7 * at as u32);
            value |= bits << shift;
            if byte & 0x80 == 0 {
                self.bytes = &self.bytes[at + 1..];
                // Neither a group of zeros at the top nor bits beyond the 64th.
                return (bits != 0 && bits << shift >> shift == bits).then_some(value);
            }
        }
        None
    }

    /// A varint of length, then that many bytes.
    #[inline]
    pub fn var_bytes(&mut self) -> Option<&'a [u8]> {
        let mut ahead = self.clone();
        let bytes = usize::try_from(ahead.varint()?).ok().and_then(|len| ahead.take(len))?;
        *self = ahead;
        Some(bytes)
    }

    /// Two bytes of length, then that many bytes.
    #[inline]
    pub fn short_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Four bytes of length, then that many bytes.
    #[inline]
    pub fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }
}

/// The number in up to four bytes of seven bits each, the lowest first.
#[inline]
const fn groups([a, b, c, d]: [u8; 4]) -> u64 {
    let low = (a & 0x7f) as u64 | ((b & 0x7f) as u64) << 7;
    low | ((c & 0x7f) as u64) << 14 | ((d & 0x7f) as u64) << 21
}

/// Appends fields to a byte vector.
pub trait Writer {
    /// Appends `bytes` as they are.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one byte.
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Appends two bytes.
    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    /// Appends four bytes.
    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    #[inline]
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// Appends `value` in as many bytes as it needs, seven bits each, the lowest first.
    #[inline]
    fn put_varint(&mut self, mut value: u64) {
        // Byte by byte: to hand a few bytes over as a slice takes longer.
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    /// Appends a varint of length and `bytes`.
    #[inline]
    fn put_var_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }

    /// Appends two bytes of length and `bytes`. Panics when `bytes` is longer than `u16::MAX`.
    #[inline]
    fn put_short_bytes(&mut self, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).expect("caller keeps short fields below 64 KiB");
        self.put_u16(len);
        self.put(bytes);
    }

    /// Appends four bytes of length and `bytes`. Panics when `bytes` is longer than `u32::MAX`.
    #[inline]
    fn put_long_bytes(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("caller keeps long fields below 4 GiB");
        self.put_u32(len);
        self.put(bytes);
    }
}

impl Writer for Vec<u8> {
    #[inline]
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
    fn varints_take_the_bytes_they_need_and_have_one_spelling() {
        let cases =
            [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (1 << 56, 9), (u64::MAX, 10)];
        for (value, len) in cases {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(bytes.len(), len, "{value}");
            for cut in 0..len {
                assert_eq!(Reader::new(&bytes[..cut]).varint(), None, "{value} cut at {cut}");
            }
            bytes.push(0xff);
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.varint(), reader.rest()), (Some(value), &[0xff][..]));
        }
        assert_eq!(Reader::new(&[0x80, 0]).varint(), None, "a longer spelling of 0");
        let mut beyond = vec![0xff; 9];
        beyond.push(2);
        assert_eq!(Reader::new(&beyond).varint(), None, "a 65th bit");
        assert_eq!(Reader::new(&[0xff; 11]).varint(), None, "no end");
        let mut bytes = Vec::new();
        bytes.put_var_bytes(b"abc");
        assert_eq!(Reader::new(&bytes).var_bytes(), Some(&b"abc"[..]));
        assert_eq!(Reader::new(&bytes[..3]).var_bytes(), None);
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

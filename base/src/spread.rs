//! Numbers that lie near each other, spread over the whole range.
//!
//! ```text
//!  spread   1, 2, 3, 4 …  ─►  0.618, 0.236, 0.854, 0.472 … of 2^64
//! ```
//!
//! Ids and page numbers come one after the other, and whoever shares them out (partitions of a table, stripes,
//! workers) wants neighbours apart. The product with the golden ratio does that (Fibonacci hashing: Knuth, TAOCP 3,
//! section 6.4). Its upper bits are good, the lower ones are not. Left out: whoever may choose the numbers can make
//! them meet; that may cost time only.

/// `value` spread over 64 bits; use the upper ones.
#[inline]
pub const fn spread(value: u64) -> u64 {
    value.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_fill_all_places_before_one_is_full() {
        let mut places = [0_u32; 64];
        (1000..1000 + 640).for_each(|n| places[(spread(n) >> 58) as usize] += 1);
        assert!(places.iter().all(|count| (8..=12).contains(count)), "{places:?}");
    }
}

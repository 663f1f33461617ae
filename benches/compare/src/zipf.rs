//! Skewed choices: Zipf's law with exponent 0.99, spread over the key space by a hash, as YCSB does.
//!
//! The generator is that of Gray et al., *Quickly Generating Billion-Record Synthetic Databases* (1994).
//! Left out: growing key spaces.

use fastrand::Rng;

const THETA: f64 = 0.99;

/// Numbers below a bound, some far more often than others.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// Numbers below `count`.
    pub(crate) fn new(count: u64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let (zeta, two) = (zeta_of(count), zeta_of(2));
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Self { count, zeta, alpha: 1.0 / (1.0 - THETA), eta }
    }

    /// One of them.
    pub(crate) fn pick(&self, rng: &mut Rng) -> u64 {
        let uniform = rng.f64();
        let scaled = uniform * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            (self.count as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha)) as u64
        };
        rank.min(self.count - 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_hundredth_gets_well_over_half() {
        let (zipf, mut rng) = (Zipf::new(10_000), Rng::with_seed(1));
        let mut hits = vec![0_u32; 10_000];
        (0..100_000).for_each(|_| hits[zipf.pick(&mut rng) as usize] += 1);
        hits.sort_unstable_by(|a, b| b.cmp(a));
        let hot: u32 = hits[..100].iter().sum();
        assert!((50_000..70_000).contains(&hot), "{hot}");
    }
}

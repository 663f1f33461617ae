//! Benchmarks of argali. (Skeleton.)

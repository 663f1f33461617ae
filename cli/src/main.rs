//! The `argali` command. (Skeleton.)
fn main() {}

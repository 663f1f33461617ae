//! The fuzzer's corpus and its findings so far, replayed by the functions that it calls; and a few thousand
//! inputs made by chance, so that these functions stay alive between campaigns.
#![allow(clippy::unwrap_used)] // a test that cannot go on should panic

#[path = "../../fuzz/inputs.rs"]
mod inputs;

use std::path::Path;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 4] = [
    ("page", inputs::page),
    ("record", inputs::record),
    ("control", inputs::control),
    ("directory", inputs::directory),
];

#[test]
fn the_corpus_finds_nothing() {
    for (target, run) in TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut inputs: Vec<_> = corpus.read_dir().unwrap().map(|e| e.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "no corpus for {target}");
        for input in inputs {
            println!("{}", input.display());
            run(&std::fs::read(&input).unwrap());
        }
    }
}

#[test]
fn random_edits_of_a_database_end_in_a_value_or_an_error() {
    let seeds = std::env::var("ARGALI_INPUTS").map_or(300, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut input = vec![rng.u8(..8)];
        for _ in 0..rng.usize(1..6) {
            let len = *rng.choice(&[0, 1, 2, 4, 8, 8, 16, 255]).unwrap();
            input.push(rng.u8(..));
            input.extend(rng.u32(..).to_le_bytes());
            input.push(len);
            input.extend((0..len % 255).map(|_| *rng.choice(&[0, 1, 2, 3, 8, 64, 255]).unwrap()));
        }
        println!("seed {seed}");
        inputs::directory(&input);
    }
}

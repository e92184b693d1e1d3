//! Fuzzing (`docs/fuzzing.md`): frames that no client should send, and whole sessions of clients that
//! do as they like, against what must hold all the same. A hostile client makes only its own
//! connection end.
//!
//! A few cases run with every test; `scripts/fuzz` runs each target for as long as it is told. What
//! was found stays in `proptest-regressions/`, where it is run first, and as a test with a name.

mod abandoned;
mod bench;
mod found;
mod frames;
mod packets;
mod panics;
mod sessions;

use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

/// Runs a target: `cases` of it, or `PROPTEST_CASES`, or as many as fit into `FUZZ_SECONDS`.
fn fuzz<S: Strategy>(
    target: &str,
    file: &'static str,
    cases: u32,
    strategy: &S,
    test: impl Fn(S::Value) -> TestCaseResult,
) {
    let mut config = Config { source_file: Some(file), max_shrink_time: 120_000, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let (began, mut ran) = (Instant::now(), 0);
    loop {
        let mut runner = TestRunner::new(config.clone());
        if let Err(e) = runner.run(strategy, &test) {
            panic!("{target}: after {ran} cases and up to {} more: {e}", config.cases);
        }
        ran += config.cases;
        if began.elapsed() >= Duration::from_secs(seconds.unwrap_or(0)) {
            break;
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!("{target}: {ran} cases in {took:.0} s, {:.0} a second", f64::from(ran) / took);
}

/// A line for each, whatever form the report is written in.
fn lines<T: std::fmt::Debug>(all: &[T]) -> String {
    all.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join("\n")
}

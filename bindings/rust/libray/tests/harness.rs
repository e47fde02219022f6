//! A test of Rust's own harness that is its own worker, as the documentation says.

#[libray::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[test]
fn squares() {
    let config = libray::Config::new().num_cpus(1.0).store_bytes(64 << 20);
    let _ray = config.worker_arguments(["squares", "--exact", "--nocapture"]).init().unwrap();
    assert_eq!(square::remote(3).unwrap().get().unwrap(), 9);
    assert!(square::remote(i64::MAX).unwrap().get().is_err()); // it overflows, which panics in a test
}

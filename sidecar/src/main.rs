//! `portreeve`: the sidecar.
fn main() {}

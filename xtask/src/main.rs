//! Tasks of the repository that cargo has no command for.
fn main() {}

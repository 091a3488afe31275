//! Work commands.
fn main() {}

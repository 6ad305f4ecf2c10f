//! seectl.

fn main() {}

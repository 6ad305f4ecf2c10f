//! The duties of this workspace.

fn main() {}

//! Where the built things lie.

use std::path::{Path, PathBuf};

/// The target folder that this test was built into.
pub fn target_folder() -> PathBuf {
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test
        .ancestors()
        .nth(3)
        .expect("a test lies in a target folder");
    folder.to_owned()
}

/// The program that users run.
pub fn seectl() -> PathBuf {
    built(profile().join("seectl"), "cargo build -p see-cli")
}

/// The folder of the profile that this test was built with.
fn profile() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.ancestors().nth(2);
    profile.expect("a test lies in a target folder").to_owned()
}

/// An example of see-cli, such as `embed`.
pub fn example(name: &str) -> PathBuf {
    let path = profile().join("examples").join(name);
    built(path, "cargo build -p see-cli --examples")
}

/// A file of the small Linux guest, such as `guest.qcow2`.
pub fn guest(file: &str) -> PathBuf {
    built(
        target_folder().join("guest").join(file),
        "cargo xtask guest",
    )
}

fn built(path: PathBuf, by: &str) -> PathBuf {
    assert!(
        Path::exists(&path),
        "{} is missing: `{by}` makes it, and `cargo xtask test` all",
        path.display()
    );
    path
}

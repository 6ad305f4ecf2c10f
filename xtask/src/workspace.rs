//! Where the checkout and its target folder are.

use std::env;
use std::path::{Path, PathBuf};

/// The folder of the checkout. It is only read: it may be read-only.
pub(crate) fn root() -> PathBuf {
    // At run time cargo says where the package is; the path of the build
    // serves when the program is called without cargo.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// The target folder, absolute: wherever cargo put this very program, so that
/// `CARGO_TARGET_DIR`, `--target-dir` and configuration files all hold.
pub(crate) fn target() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .or_else(|| program.ancestors().nth(2))
        .map_or_else(|| root().join("target"), Path::to_path_buf)
}

/// SEE's folder in the account's cache; `None` for an account without a home.
pub(crate) fn cache() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|cache| cache.is_absolute())
        .or_else(|| Some(env::home_dir()?.join(".cache")))?;
    Some(cache.join("see"))
}

/// This very program, also after a build has put a new one in its place.
pub(crate) fn own_program() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    match program
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
    {
        Some(replaced) => replaced.into(),
        None => program,
    }
}

/// The cargo to call: the one that called us.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The `PATH` with the system administrator's folders, where an ordinary
/// user's shell does not look but e2fsprogs and libvirtd live.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !folders.iter().any(|known| known == Path::new(folder)) {
            folders.push(folder.into());
        }
    }
    folders
}

/// The file a program's name stands for, if the host has it.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    search_path()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

//! What differs between the guests' operating systems: one file each, with the same functions.

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

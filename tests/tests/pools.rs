//! Images from storage pools.
//!
//! In a program of its own: a process that has opened libvirt's embedded driver, as other tests of storage do, does
//! not reach the daemon.

#[path = "storage/pools.rs"]
mod images;

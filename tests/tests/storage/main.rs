//! Disks, firmware and storage pools of real machines: what is the user's stays as it is, and what cannot be
//! made is told and leaves nothing.
//!
//! Some of it needs root, for file systems and a libvirtd of its own, and fails without.

mod disks;
mod firmware;
mod full;
mod names;
mod owners;
mod pools;
mod support;

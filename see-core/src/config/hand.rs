//! How the deserializer hands a node to a field type of ours.
//!
//! Serde's data model has no room for origins. A field type that wants one asks for a newtype struct of
//! a private name; our deserializer recognises the name and leaves the node in a slot of this thread,
//! which the type's visitor empties as its first act.

use std::cell::Cell;

use super::Configuration;

/// The name by which [`Configuration`] asks for its node.
pub(super) const TREE: &str = "$see_core::config::Configuration";
/// The name by which [`Located`](super::Located) asks for its place, and [`OneOrMany`](super::OneOrMany)
/// for what it is about to read.
pub(super) const LOCATED: &str = "$see_core::config::Located";

thread_local! {
    static SLOT: Cell<Option<Configuration>> = const { Cell::new(None) };
}

pub(super) fn give(node: Configuration) {
    SLOT.set(Some(node));
}

pub(super) fn take() -> Option<Configuration> {
    SLOT.take()
}

//! The configuration: one tree in which every key and value knows where it came from.
//!
//! A [`Configuration`] is read from a file, changed by overrides ([`Configuration::set`]) and by what a
//! run puts in for `${sample}` and its like ([`Configuration::substitute`]), and then read into typed
//! configurations ([`Configuration::deserialize`]), whose mistakes are errors with a [`Place`].
//!
//! Typed configurations derive serde's `Deserialize`. Not to be used in them: `flatten` and `untagged`
//! (and `tag`), which copy the values into a buffer that knows no places. Field types of ours serve
//! instead: [`OneOrMany`], [`Located`], [`ConfigPath`], [`DurationValue`], [`Size`], and
//! [`Configuration`] itself for what somebody else is to read.

mod edit;
mod excerpt;
mod failure;
mod fields;
mod hand;
mod located;
mod nearest;
mod one_or_many;
mod overrides;
mod parse;
mod path;
pub(crate) mod python_see;
mod quantity;
mod read;
mod run_file;
mod substitute;
mod tree;

pub use crate::place::{Origin, Place};
pub use excerpt::Excerpt;
pub use fields::fields_of;
pub use located::{ConfigPath, Located};
pub use nearest::nearest;
pub use one_or_many::OneOrMany;
pub use quantity::{DurationValue, Size};
pub use run_file::{HookSection, HooksSection, RunFile};
pub use substitute::Substitutions;
pub use tree::Configuration;

//! The configuration: one tree in which every key and value knows where it came from.

mod edit;
mod excerpt;
mod failure;
mod fields;
mod hand;
mod located;
mod nearest;
mod one_or_many;
mod origin;
mod overrides;
mod parse;
mod path;
mod quantity;
mod read;
mod run_file;
mod substitute;
mod tree;

pub use excerpt::Excerpt;
pub use fields::fields_of;
pub use located::{ConfigPath, Located};
pub use nearest::nearest;
pub use one_or_many::OneOrMany;
pub use origin::{Origin, Place};
pub use quantity::{DurationValue, Size};
pub use run_file::{HookSection, HooksSection, RunFile};
pub use substitute::Substitutions;
pub use tree::Configuration;

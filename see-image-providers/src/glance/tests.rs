//! The provider against a cloud that misbehaves on request; real ones are in the crate of the end-to-end tests.

mod cloud;
mod configured;
mod found;
mod logged_in;

//! Networks on a libvirtd of the test's own: what guests on them reach, and that nothing clashes or stays.
//!
//! The daemon has a network namespace of its own, so neither its firewall nor its forwarding is anybody else's.

mod addresses;
mod claims;
mod counted;
mod crashes;
mod guard;
mod holes;
mod hostile;
mod hosts;
mod identity;
mod isolated;
mod layers;
mod matches;
mod modes;
mod neighbour;
mod proof;
mod rights;
mod shared;
mod support;

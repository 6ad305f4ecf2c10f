//! Runs that are cut off, crowded and worn: whatever happens, nothing is left.
//!
//! `SEE_CAMPAIGN_COUNT` says how many instants are tried in each phase of each hypervisor, or how many rounds;
//! `SEE_CAMPAIGN_SEED` (or `SEE_SEED`) repeats the same ones.

#![expect(clippy::print_stdout, reason = "a campaign reads the counts")]

mod arena;
mod crowds;
mod daemons;
mod decoys;
mod files;
mod instants;
mod kills;
mod sampling;
mod signals;
mod strangers;
mod terminal;
mod volley;

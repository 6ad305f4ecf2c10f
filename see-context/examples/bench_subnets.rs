//! How long it takes to pick a free /28 of a /8. `cargo xtask bench subnets` runs it beside python-see.
//!
//! The file of the crate itself, compiled once more: what it does is nothing for other crates. Prints one JSON object:
//! `{"seconds": …, "free": …}`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use subnet::{FreeSubnets, Subnet};

#[path = "../src/network/subnet.rs"]
#[expect(dead_code, reason = "a part of it is measured")]
mod subnet;

/// How long is measured.
const RUN: Duration = Duration::from_millis(500);
/// Claims between two looks at the clock.
const BATCH: u64 = 1000;
/// The networks that are there.
const TAKEN: u32 = 16;

fn main() {
    let network = |first: u32, prefix| {
        Subnet::containing(IpAddr::V4(Ipv4Addr::from(first)), prefix).expect("a prefix of IPv4")
    };
    let (base, within) = (10 << 24, network(10 << 24, 8));
    let taken: Vec<Subnet> = (0..TAKEN).map(|n| network(base + n * 4096, 28)).collect();
    let (mut claims, mut free) = (0_u64, 0);
    let since = Instant::now();
    while since.elapsed() < RUN {
        for _ in 0..BATCH {
            // All over the network, as a random number would be.
            claims += 1;
            let number = claims.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let found = FreeSubnets::new(black_box(within), 28, black_box(&taken));
            let found = found.expect("it fits");
            free = found.count();
            let picked = found.pick(number).expect("much is free");
            assert!(!taken.iter().any(|other| other.overlaps(picked)));
            black_box(picked);
        }
    }
    let seconds = since.elapsed().as_secs_f64() / claims as f64;
    println!("{{\"seconds\": {seconds:e}, \"free\": {free}}}");
}

//! Ports of the loopback that a server keeps over its restarts.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

/// Below those that the kernel gives to outgoing connections: one of them would take a port whose server is
/// stopped for a moment.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// The port that the file remembers, where it is still free; else another one, which the file remembers then.
pub(super) fn remembered(file: &Path) -> u16 {
    let known = std::fs::read_to_string(file).ok();
    let known = known.and_then(|text| text.trim().parse::<u16>().ok());
    if let Some(port) = known.filter(|port| is_free(*port)) {
        return port;
    }
    let port = free();
    std::fs::write(file, port.to_string()).expect("the folder of the services is writable");
    port
}

/// A port that is free now.
pub(super) fn free() -> u16 {
    // Two test programs begin at different places, so that they hardly meet.
    let length = RANGE.end - RANGE.start;
    let number = uuid::Uuid::new_v4().as_u128() % u128::from(length);
    let begin = u16::try_from(number).expect("it is less than the length");
    (0..length)
        .map(|step| RANGE.start + (begin + step) % length)
        .find(|port| is_free(*port))
        .expect("some port is free")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

//! Images from real servers on loopback: complete, verified, resumed, shared; and the servers themselves.

mod servers;

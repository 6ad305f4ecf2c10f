//! Free subnets, found by interval arithmetic.

use std::net::Ipv4Addr;

/// An IPv4 network: an aligned range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    /// The network of this prefix length that `address` lies in; `None` above 32 bits.
    pub(crate) fn containing(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let host = 32_u32.checked_sub(u32::from(prefix))?;
        let mask = u32::MAX.checked_shl(host).unwrap_or(0);
        Some(Self {
            first: u32::from(address) & mask,
            prefix,
        })
    }

    /// Its first address, which names it.
    pub(crate) fn address(self) -> Ipv4Addr {
        self.first.into()
    }

    /// The length of its prefix.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    fn last(self) -> u32 {
        self.first | u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0)
    }

    /// The address `offset` behind the first; `None` outside of the network.
    pub(crate) fn host(self, offset: u32) -> Option<Ipv4Addr> {
        let address = self.first.checked_add(offset)?;
        (address <= self.last()).then(|| address.into())
    }

    /// The last address that a guest may have: the one before the broadcast address.
    pub(crate) fn last_host(self) -> Ipv4Addr {
        self.last().saturating_sub(1).into()
    }

    /// Whether they have an address in common.
    #[cfg(test)]
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }
}

/// The free subnets of one size within a network: how many there are, and each by its number.
#[derive(Debug)]
pub(crate) struct FreeSubnets {
    /// Runs of free subnets: the first's number, and how many.
    runs: Vec<(u32, u32)>,
    within: Subnet,
    prefix: u8,
}

impl FreeSubnets {
    /// The subnets of `prefix` bits in `within` that have no address in common with any `taken`
    /// one. `None` where `prefix` is shorter than that of `within`, or too long for a network
    /// with a host's and a guest's address (30 bits).
    ///
    /// The work depends on how many are taken, never on how many there are.
    pub(crate) fn new(within: Subnet, prefix: u8, taken: &[Subnet]) -> Option<Self> {
        if prefix < within.prefix || prefix > 30 {
            return None;
        }
        let size = 32 - u32::from(prefix);
        // With a prefix of 0 there is one subnet, and shifts by 32 would be needed.
        let number = |address: u32| -> u64 { u64::from(address) >> size };
        let (first, last) = (number(within.first), number(within.last()));
        let mut blocked: Vec<(u64, u64)> = taken
            .iter()
            .map(|subnet| (number(subnet.first), number(subnet.last())))
            .filter(|(from, to)| *from <= last && *to >= first)
            .collect();
        blocked.sort_unstable();
        let mut runs = Vec::new();
        let mut next = first;
        for (from, to) in blocked {
            if from > next {
                runs.push((next, from - next));
            }
            next = next.max(to + 1);
        }
        if next <= last {
            runs.push((next, last + 1 - next));
        }
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Some(Self {
            runs: runs
                .into_iter()
                .map(|(from, count)| (narrow(from), narrow(count)))
                .collect(),
            within,
            prefix,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.runs.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The `index`th, modulo their number; `None` where there is none.
    pub(crate) fn pick(&self, index: u64) -> Option<Subnet> {
        let mut index = index.checked_rem(self.count())?;
        for (from, count) in &self.runs {
            if index < u64::from(*count) {
                let number = u64::from(*from) + index;
                let first = number << (32 - u32::from(self.prefix));
                return Some(Subnet {
                    first: u32::try_from(first).ok()?,
                    prefix: self.prefix,
                });
            }
            index -= u64::from(*count);
        }
        None
    }

    /// Where they were looked for.
    pub(crate) fn within(&self) -> Subnet {
        self.within
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet() -> impl Strategy<Value = Subnet> {
        (any::<u32>(), 0_u8..=32)
            .prop_map(|(address, prefix)| Subnet::containing(address.into(), prefix).unwrap())
    }

    proptest! {
        #[test]
        fn a_picked_subnet_is_inside_and_overlaps_nothing_taken(
            within in subnet(),
            longer in 0_u8..=30,
            taken in proptest::collection::vec(subnet(), 0..12),
            index: u64,
        ) {
            let Some(free) = FreeSubnets::new(within, longer, &taken) else {
                prop_assert!(longer < within.prefix() || longer > 30);
                return Ok(());
            };
            match free.pick(index) {
                None => prop_assert_eq!(free.count(), 0),
                Some(found) => {
                    prop_assert_eq!(found.prefix(), longer);
                    prop_assert!(found.overlaps(within) && found.prefix() >= within.prefix());
                    for other in &taken {
                        prop_assert!(!found.overlaps(*other), "{} overlaps {}", found, other);
                    }
                }
            }
        }

        #[test]
        fn every_free_subnet_is_counted(
            taken in proptest::collection::vec((any::<u8>(), 20_u8..=32), 0..20),
        ) {
            let within = Subnet::containing([10, 9, 0, 0].into(), 20).unwrap();
            let taken: Vec<Subnet> = taken
                .into_iter()
                .map(|(low, prefix)| Subnet::containing([10, 9, low % 16, low].into(), prefix).unwrap())
                .collect();
            let free = FreeSubnets::new(within, 26, &taken).unwrap();
            let expected = (0..64_u32)
                .map(|number| Subnet { first: within.first + number * 64, prefix: 26 })
                .filter(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
                .count() as u64;
            prop_assert_eq!(free.count(), expected);
        }
    }

    #[test]
    fn a_small_subnet_inside_a_taken_large_one_is_not_free() {
        let within = Subnet::containing([10, 0, 0, 0].into(), 8).unwrap();
        let taken = [Subnet::containing([10, 0, 0, 0].into(), 9).unwrap()];
        let free = FreeSubnets::new(within, 24, &taken).unwrap();
        assert_eq!(free.count(), 1 << 15);
        assert!(free.pick(0).unwrap().to_string().starts_with("10.128."));
    }

    #[test]
    fn the_hosts_of_a_subnet_leave_out_its_name_and_its_broadcast() {
        let subnet = Subnet::containing([192, 168, 7, 99].into(), 30).unwrap();
        assert_eq!(subnet.to_string(), "192.168.7.96/30");
        assert_eq!(subnet.host(1), Some([192, 168, 7, 97].into()));
        assert_eq!(subnet.last_host(), Ipv4Addr::new(192, 168, 7, 98));
        assert_eq!(subnet.host(4), None);
    }
}

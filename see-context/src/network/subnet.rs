//! Free subnets, found by interval arithmetic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network of one family: an aligned range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    family: Family,
    /// The address as a number.
    first: u128,
    prefix: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// The length of an address, in bits.
    fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self {
            // A number of this family has 32 bits.
            Self::V4 => Ipv4Addr::from(number as u32).into(),
            Self::V6 => Ipv6Addr::from(number).into(),
        }
    }
}

impl Subnet {
    /// The network of this prefix length that `address` lies in; `None` above the length of an address.
    pub(crate) fn containing(address: IpAddr, prefix: u8) -> Option<Self> {
        let (family, number) = match address {
            IpAddr::V4(address) => (Family::V4, u128::from(u32::from(address))),
            IpAddr::V6(address) => (Family::V6, u128::from(address)),
        };
        let host = u32::from(family.bits().checked_sub(prefix)?);
        let mask = u128::MAX.checked_shl(host).unwrap_or(0);
        Some(Self {
            family,
            first: number & mask,
            prefix,
        })
    }

    /// Its first address, which names it.
    pub(crate) fn address(self) -> IpAddr {
        self.family.address(self.first)
    }

    /// The length of its prefix.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is a single address.
    pub(crate) fn is_one(self) -> bool {
        self.host_bits() == 0
    }

    /// How many bits tell its addresses apart.
    fn host_bits(self) -> u32 {
        u32::from(self.family.bits() - self.prefix)
    }

    fn last(self) -> u128 {
        self.first | !u128::MAX.checked_shl(self.host_bits()).unwrap_or(0)
    }

    /// The address `offset` behind the first; `None` outside of the network.
    pub(crate) fn host(self, offset: u32) -> Option<IpAddr> {
        let address = self.first.checked_add(u128::from(offset))?;
        (address <= self.last()).then(|| self.family.address(address))
    }

    /// The last address that a guest may have: the one before the last, which is IPv4's broadcast address.
    pub(crate) fn last_host(self) -> IpAddr {
        self.family.address(self.last().saturating_sub(1))
    }

    /// Whether they have an address in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.family == other.family && self.first <= other.last() && other.first <= self.last()
    }
}

/// The free subnets of one size within a network: how many there are, and each by its number.
#[derive(Debug)]
pub(crate) struct FreeSubnets {
    /// Runs of free subnets: the first's number, and how many.
    runs: Vec<(u128, u128)>,
    within: Subnet,
    prefix: u8,
}

impl FreeSubnets {
    /// The subnets of `prefix` bits in `within` that have no address in common with any `taken`
    /// one. `None` where `prefix` is shorter than that of `within`, or too long for a network
    /// with a host's and a guest's address (30 bits of 32, 126 of 128).
    ///
    /// The work depends on how many are taken, never on how many there are.
    pub(crate) fn new(within: Subnet, prefix: u8, taken: &[Subnet]) -> Option<Self> {
        if prefix < within.prefix || prefix > within.family.bits() - 2 {
            return None;
        }
        let size = u32::from(within.family.bits() - prefix);
        // With a prefix of 0 there is one subnet, and shifts by the whole length would be needed.
        let number = |address: u128| address.checked_shr(size).unwrap_or(0);
        let (first, last) = (number(within.first), number(within.last()));
        let mut blocked: Vec<(u128, u128)> = taken
            .iter()
            .filter(|subnet| subnet.family == within.family)
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
        Some(Self {
            runs,
            within,
            prefix,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u128 {
        self.runs.iter().map(|(_, count)| count).sum()
    }

    /// The `index`th, modulo their number; `None` where there is none.
    pub(crate) fn pick(&self, index: u64) -> Option<Subnet> {
        let mut index = u128::from(index).checked_rem(self.count())?;
        for (from, count) in &self.runs {
            if index < *count {
                let size = u32::from(self.within.family.bits() - self.prefix);
                return Some(Subnet {
                    family: self.within.family,
                    first: (from + index).checked_shl(size).unwrap_or(0),
                    prefix: self.prefix,
                });
            }
            index -= count;
        }
        None
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix)
    }
}

/// A number that differs from process to process and call to call.
pub(super) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::Instant::now())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Networks of both families; many of the larger ones lie close together.
    fn subnet() -> impl Strategy<Value = Subnet> {
        let four = (any::<u32>(), 0_u8..=32)
            .prop_map(|(address, prefix)| containing(Ipv4Addr::from(address), prefix));
        let six = (any::<u128>(), 0_u8..=128)
            .prop_map(|(address, prefix)| containing(Ipv6Addr::from(address >> 100 << 60), prefix));
        prop_oneof![four, six]
    }

    fn containing(address: impl Into<IpAddr>, prefix: u8) -> Subnet {
        Subnet::containing(address.into(), prefix).unwrap()
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn a_picked_subnet_is_inside_and_overlaps_nothing_taken(
                within in subnet(),
                longer in 0_u8..=128,
                taken in proptest::collection::vec(subnet(), 0..12),
                index: u64,
            ) {
                let Some(free) = FreeSubnets::new(within, longer, &taken) else {
                    prop_assert!(longer < within.prefix() || longer > within.family.bits() - 2);
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
                let within = containing([10, 9, 0, 0], 20);
                let taken: Vec<Subnet> = taken
                    .into_iter()
                    .map(|(low, prefix)| containing([10, 9, low % 16, low], prefix))
                    .collect();
                let free = FreeSubnets::new(within, 26, &taken).unwrap();
                let expected = (0..64_u32)
                    .map(|number| containing(within.host(number * 64).unwrap(), 26))
                    .filter(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
                    .count() as u128;
                prop_assert_eq!(free.count(), expected);
            }
        }
    }

    #[test]
    fn a_small_subnet_inside_a_taken_large_one_is_not_free() {
        let within = containing([10, 0, 0, 0], 8);
        let taken = [containing([10, 0, 0, 0], 9)];
        let free = FreeSubnets::new(within, 24, &taken).unwrap();
        assert_eq!(free.count(), 1 << 15);
        assert!(free.pick(0).unwrap().to_string().starts_with("10.128."));
    }

    #[test]
    fn the_hosts_of_a_subnet_leave_out_its_name_and_its_broadcast() {
        let subnet = containing([192, 168, 7, 99], 30);
        assert_eq!(subnet.to_string(), "192.168.7.96/30");
        assert_eq!(subnet.host(1), Some(IpAddr::from([192, 168, 7, 97])));
        assert_eq!(subnet.last_host(), IpAddr::from([192, 168, 7, 98]));
        assert_eq!(subnet.host(4), None);
    }

    #[test]
    fn four_billion_subnets_cost_as_much_work_as_four() {
        // python-see listed them: 4 s and 380 MB for a million.
        let taken: Vec<Subnet> = (0..100)
            .map(|low| containing([10, low, 0, 0], 16))
            .collect();
        for (within, prefix) in [
            (containing([10, 0, 0, 0], 8), 28),
            (containing([10, 0, 0, 0], 8), 30),
            (containing([0xfd00, 0, 0, 0, 0, 0, 0, 0], 8), 126),
        ] {
            let free = FreeSubnets::new(within, prefix, &taken).unwrap();
            assert!(free.runs.len() <= taken.len() + 1, "{}", free.runs.len());
            assert!(free.count() > 600_000);
            assert!(free.pick(u64::MAX).is_some());
        }
    }

    #[test]
    fn the_families_do_not_meet() {
        let all_of_six = containing(Ipv6Addr::UNSPECIFIED, 0);
        let free = FreeSubnets::new(containing([10, 0, 0, 0], 8), 24, &[all_of_six]).unwrap();
        assert_eq!(free.count(), 1 << 16);
        assert!(!all_of_six.overlaps(containing([0, 0, 0, 0], 0)));
    }
}

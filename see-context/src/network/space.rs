//! Where subnets of a network are looked for.

use std::net::{IpAddr, Ipv4Addr};

use see_core::config::{Located, OneOrMany};
use see_core::{Error, ErrorKind, Result};

use super::subnet::{FreeSubnets, Subnet, random};
use super::taken::Taken;

/// Address space that is private (RFC 1918), the largest first; and last, for hosts that route all of it elsewhere, the
/// space between carriers and their customers (RFC 6598), which rarely is a network of a host's own either.
const PRIVATE: [([u8; 4], u8); 4] = [
    ([10, 0, 0, 0], 8),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    ([100, 64, 0, 0], 10),
];

/// A subnet that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Search {
    /// Where it is looked for: in the first of these that has a free one.
    spaces: Vec<Subnet>,
    /// The length of its prefix, in bits.
    prefix: u8,
    /// The key that says otherwise.
    key: &'static str,
}

impl Search {
    /// A subnet in one of these, as `key` says.
    pub(super) fn within(spaces: Vec<Subnet>, prefix: u8, key: &'static str) -> Self {
        Self {
            spaces,
            prefix,
            key,
        }
    }

    /// A private subnet of IPv4.
    pub(super) fn private(prefix: u8) -> Self {
        let spaces = PRIVATE
            .into_iter()
            .filter_map(|(address, bits)| Subnet::containing(address.into(), bits));
        Self::within(spaces.collect(), prefix, "address_space")
    }

    /// Whether a subnet lies in it.
    pub(super) fn contains(&self, subnet: Subnet) -> bool {
        self.spaces
            .iter()
            .any(|space| space.prefix() <= subnet.prefix() && space.overlaps(subnet))
    }

    /// A random one of the free subnets.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] where none is free.
    pub(super) fn pick(&self, taken: &[Taken]) -> Result<Subnet> {
        let blocked: Vec<Subnet> = taken.iter().map(|taken| taken.subnet).collect();
        let picked = self
            .spaces
            .iter()
            .find_map(|space| FreeSubnets::new(*space, self.prefix, &blocked)?.pick(random()));
        picked.ok_or_else(|| self.exhausted(taken))
    }

    fn exhausted(&self, taken: &[Taken]) -> Error {
        let whole = |space: &Subnet| {
            let mut covering = taken.iter().filter(|taken| {
                taken.subnet.overlaps(*space) && taken.subnet.prefix() <= space.prefix()
            });
            match covering.next() {
                Some(taken) => format!("{space} ({} has {})", taken.by, taken.subnet),
                None => space.to_string(),
            }
        };
        let spaces: Vec<String> = self.spaces.iter().map(whole).collect();
        let message = format!(
            "every subnet of {} bits is in use in {}",
            self.prefix,
            spaces.join(", ")
        );
        Error::new(ErrorKind::Exhausted, message).advice(format!(
            "give `network.{}` a network that this host does not route elsewhere, or end other sandboxes",
            self.key
        ))
    }
}

/// The prefixes of the key `address_space`, for a network with this length of a prefix.
///
/// # Errors
/// At the place of what is no prefix of IPv4, or has no room for such a subnet.
pub(super) fn address_space(
    written: &Located<OneOrMany<Located<String>>>,
    prefix: u8,
) -> Result<Search> {
    let spaces = written
        .iter()
        .map(|text| {
            let wrong = |message: String| Error::configuration(text.place().clone(), message);
            let space = parse(text).map_err(|found| {
                wrong(format!("found {found}")).advice(
                    "an address space is a prefix of IPv4, as \"172.20.0.0/16\", or a list of them",
                )
            })?;
            if space.prefix() > prefix {
                return Err(wrong(format!(
                    "found {space}, which is smaller than a network of this mode: it has a prefix of {prefix} bits"
                )));
            }
            Ok(space)
        })
        .collect::<Result<Vec<_>>>()?;
    if spaces.is_empty() {
        let message = "found an empty list, there must be a prefix to look in";
        return Err(Error::configuration(written.place().clone(), message));
    }
    Ok(Search::within(spaces, prefix, "address_space"))
}

/// A prefix of IPv4, or what is wrong with it.
fn parse(text: &str) -> Result<Subnet, String> {
    let shown = || format!("{:?}, which is no prefix of IPv4", text);
    let (address, prefix) = text.split_once('/').ok_or_else(shown)?;
    let address: Ipv4Addr = address.parse().map_err(|_| shown())?;
    let prefix: u8 = prefix.parse().map_err(|_| shown())?;
    let subnet = Subnet::containing(address.into(), prefix).ok_or_else(shown)?;
    if subnet.address() != IpAddr::V4(address) {
        return Err(format!("{text:?}, the network of that is {subnet}"));
    }
    if address.is_loopback() || address.is_multicast() || address.is_broadcast() {
        return Err(format!("{text:?}, in which no guest can have an address"));
    }
    Ok(subnet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        parse(text).unwrap()
    }

    fn routes(subnets: &[&str]) -> Vec<Taken> {
        subnets
            .iter()
            .map(|text| Taken {
                subnet: subnet(text),
                by: "a route of this host".to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_private_range_that_the_host_routes_gives_way_to_the_next() {
        let (ten, twelve, sixteen) = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16");
        for (routed, expected) in [
            (vec![], ten),
            (vec![twelve], ten),
            (vec![sixteen], ten),
            (vec![ten], twelve),
            (vec![ten, sixteen], twelve),
            (vec![ten, twelve], sixteen),
            (vec![ten, twelve, sixteen], "100.64.0.0/10"),
            (vec!["10.0.0.0/9"], "10.128.0.0/9"),
        ] {
            for prefix in [23, 24, 30] {
                let picked = Search::private(prefix).pick(&routes(&routed)).unwrap();
                assert_eq!(picked.prefix(), prefix);
                assert!(picked.overlaps(subnet(expected)), "{routed:?}: {picked}");
            }
        }
    }

    #[test]
    fn where_nothing_is_free_the_error_says_who_has_it_and_names_the_key() {
        let all = [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
        ];
        let error = Search::private(24).pick(&routes(&all)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let text = error.to_string();
        for space in all {
            let who = format!("{space} (a route of this host has {space})");
            assert!(text.contains(&who), "{text}");
        }
        assert!(text.contains("`network.address_space`"), "{text}");
    }

    #[test]
    fn what_is_no_network_of_ipv4_is_told() {
        for (text, part) in [
            ("10.0.0.0", "no prefix"),
            ("10.0.0.0/33", "no prefix"),
            ("fd00::/8", "no prefix"),
            ("10.1.0.0/8", "the network of that is 10.0.0.0/8"),
            ("127.0.0.0/8", "no guest"),
            ("224.0.0.0/4", "no guest"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_subnet_lies_in_the_space_that_has_all_of_it() {
        let search = Search::within(vec![subnet("172.20.0.0/16")], 24, "address_space");
        assert!(search.contains(subnet("172.20.3.0/24")));
        assert!(!search.contains(subnet("172.21.3.0/24")));
        assert!(!search.contains(subnet("172.16.0.0/12")));
    }
}

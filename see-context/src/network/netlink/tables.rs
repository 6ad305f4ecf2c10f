//! nftables as the kernel has them: what stands in a table, and a word whenever something changes there.
//!
//! A table is remembered as the kernel's own messages, byte for byte, so that any change of it shows, also one that
//! this code does not know the meaning of. Only the seats, which others take and leave, are told apart from the rest.
//! The program `nft` is not needed for looking: a look costs some system calls and no process.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, TokioSocket};
use see_core::{Error, ErrorKind, Result};

use super::{BUFFER, Question, ask, messages, open, receive};
use crate::network::nft::Family;
use crate::network::rules::{SEATS, Seat};

// The kernel's numbers: <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>, and those of libnftnl for
// comments.
const SUBSYSTEM: u16 = 10;
const GROUP: u32 = 7;
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const NEW_CHAIN: u8 = 3;
const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
const NEW_SET: u8 = 9;
const GET_SET: u8 = 10;
const GET_ELEMENTS: u8 = 13;
/// The name of the table, in messages of every kind.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;
const RULE_USERDATA: u16 = 7;
const SET_NAME: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_USERDATA: u16 = 6;
const DATA_VALUE: u16 = 1;
const COMMENT: u8 = 0;
/// Of the objects of these kinds, the attribute that tells of others: how many chains, rules or elements there are, and
/// which rule stands before this one. The others are compared themselves.
const OF_OTHERS: [(u8, u16); 4] = [(NEW_TABLE, 3), (NEW_CHAIN, 6), (NEW_RULE, 6), (NEW_SET, 20)];
const ENOENT: i32 = 2;
const ENOBUFS: i32 = 105;

/// A message of nftables: what it is about, and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    subsystem: u16,
    kind: u8,
    family: u8,
    attributes: Vec<u8>,
}

/// The family, a version, and a number that each change makes another one.
const HEAD: usize = 4;

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.subsystem << 8 | u16::from(self.kind)
    }

    fn buffer_len(&self) -> usize {
        HEAD + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEAD].copy_from_slice(&[self.family, 0, 0, 0]);
        buffer[HEAD..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let [subsystem, kind] = header.message_type.to_be_bytes();
        let (head, attributes) = payload
            .split_at_checked(HEAD)
            .ok_or("a message of nftables is cut off")?;
        Ok(Self {
            subsystem: subsystem.into(),
            kind,
            family: head[0],
            attributes: attributes.to_vec(),
        })
    }
}

impl Message {
    /// A request about a family, with texts as attributes.
    fn request(kind: u8, family: Family, texts: &[(u16, &str)]) -> Self {
        let attributes: Vec<DefaultNla> = texts
            .iter()
            .map(|(kind, text)| DefaultNla::new(*kind, [text.as_bytes(), &[0]].concat()))
            .collect();
        let mut bytes = vec![0; attributes.as_slice().buffer_len()];
        attributes.as_slice().emit(&mut bytes);
        Self {
            subsystem: SUBSYSTEM,
            kind,
            family: number(family),
            attributes: bytes,
        }
    }

    fn text(&self, kind: u16) -> Option<&str> {
        text(attribute(&self.attributes, kind)?)
    }

    /// The object in words.
    fn shown(&self) -> String {
        let table = self.text(TABLE).unwrap_or_default();
        let name = |kind| self.text(kind).unwrap_or_default();
        match self.kind {
            NEW_TABLE => format!("the table {table} itself"),
            NEW_CHAIN => format!("the chain {} of the table {table}", name(CHAIN_NAME)),
            NEW_RULE => format!(
                "a rule in the chain {} of the table {table}",
                name(RULE_CHAIN)
            ),
            NEW_SET => format!("the set {} of the table {table}", name(SET_NAME)),
            _ => format!("something in the table {table}"),
        }
    }
}

fn number(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Bridge => 7,
    }
}

/// The attributes in these bytes. What is cut off ends them.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute: Result<NlaBuffer<&[u8]>, _>| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(4..length)?))
    })
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, value)| value)
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0])?).ok()
}

/// The comment in what programs keep beside a rule or an element.
fn comment(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, after) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return text(value);
        }
        userdata = after;
    }
    None
}

/// A table as it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct Table {
    /// The table itself, its chains, rules and sets, in the kernel's order.
    objects: Vec<Message>,
    /// The elements of its set of seats.
    pub(in crate::network) seats: Vec<Seat>,
}

impl Table {
    /// Whether a rule of it carries this label.
    pub(in crate::network) fn is_labelled(&self, label: &str) -> bool {
        self.objects.iter().any(|object| {
            let userdata = attribute(&object.attributes, RULE_USERDATA);
            object.kind == NEW_RULE && userdata.and_then(comment) == Some(label)
        })
    }

    /// The first thing, but for seats, that is in one of them and not in the other, in words.
    pub(in crate::network) fn difference(&self, now: &Self) -> Option<String> {
        let missing = self.objects.iter().find(|it| !now.objects.contains(it));
        let added = now.objects.iter().find(|it| !self.objects.contains(it));
        match (missing, added) {
            (None, None) if self.objects == now.objects => None,
            (None, None) => Some("their order changed".to_owned()),
            (Some(object), _) => Some(format!("missing is {}", object.shown())),
            (None, Some(object)) => Some(format!("new is {}", object.shown())),
        }
    }
}

/// A table and everything in it, where it is there.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] without the right to look, or where the kernel gives no answer.
pub(in crate::network) async fn table(family: Family, name: &str) -> Result<Option<Table>> {
    match read(family, name).await {
        Ok(table) => Ok(Some(table)),
        Err(error) if error.raw_os_error() == Some(ENOENT) => Ok(None),
        Err(error) => Err(unreadable(error).subject(name)),
    }
}

async fn read(family: Family, name: &str) -> io::Result<Table> {
    let request = Message::request(GET_TABLE, family, &[(TABLE, name)]);
    let mut objects = ask(NETLINK_NETFILTER, &request, Question::One).await?;
    for kind in [GET_CHAIN, GET_RULE, GET_SET] {
        let request = Message::request(kind, family, &[(TABLE, name)]);
        let found = ask(NETLINK_NETFILTER, &request, Question::Dump).await?;
        // The kernel lists chains of every table.
        objects.extend(found.into_iter().filter(|it| it.text(TABLE) == Some(name)));
    }
    let has_seats = objects
        .iter()
        .any(|it| it.kind == NEW_SET && it.text(SET_NAME) == Some(SEATS));
    let mut seats = Vec::new();
    if has_seats {
        let request = Message::request(GET_ELEMENTS, family, &[(TABLE, name), (SET_NAME, SEATS)]);
        let found = ask(NETLINK_NETFILTER, &request, Question::Dump).await?;
        seats = found.iter().flat_map(seats_in).collect();
        // In the order of the kernel's hash otherwise.
        seats.sort_by_key(|seat| (seat.address, seat.agent));
    }
    for object in &mut objects {
        if let Some((_, tells)) = OF_OTHERS.iter().find(|(kind, _)| *kind == object.kind) {
            object.attributes = without(&object.attributes, *tells);
        }
    }
    Ok(Table { objects, seats })
}

/// These attributes without one kind of them.
fn without(bytes: &[u8], unwanted: u16) -> Vec<u8> {
    let kept: Vec<DefaultNla> = attributes(bytes)
        .filter(|(kind, _)| *kind != unwanted)
        .map(|(kind, value)| DefaultNla::new(kind, value.to_vec()))
        .collect();
    let mut bytes = vec![0; kept.as_slice().buffer_len()];
    kept.as_slice().emit(&mut bytes);
    bytes
}

fn seats_in(message: &Message) -> Vec<Seat> {
    let elements = attribute(&message.attributes, ELEMENTS).unwrap_or_default();
    attributes(elements)
        .filter_map(|(_, element)| {
            let key = attribute(attribute(element, ELEMENT_KEY)?, DATA_VALUE)?;
            // An address, a port, and what pads it.
            let [a, b, c, d, high, low, ..] = *key else {
                return None;
            };
            let port = u16::from_be_bytes([high, low]);
            Some(Seat {
                address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
                agent: (port != 0).then_some(port),
                label: comment(attribute(element, ELEMENT_USERDATA)?)?.to_owned(),
            })
        })
        .collect()
}

/// The names of all tables of a family.
///
/// # Errors
/// As for [`table`].
pub(in crate::network) async fn names(family: Family) -> Result<BTreeSet<String>> {
    let request = Message::request(GET_TABLE, family, &[]);
    let found = ask(NETLINK_NETFILTER, &request, Question::Dump).await;
    let found = found.map_err(unreadable)?;
    let names = found.iter().filter_map(|table| table.text(TABLE));
    Ok(names.map(str::to_owned).collect())
}

fn unreadable(error: io::Error) -> Error {
    let kind = error.kind();
    let error = Error::io("the host's firewall rules cannot be read", error);
    match kind {
        io::ErrorKind::PermissionDenied => {
            Error::new(ErrorKind::PermissionDenied, error.message().to_owned()).caused_by(error)
        }
        _ => error,
    }
}

/// The kernel's notifications of nftables, from the moment on in which this was made.
pub(in crate::network) struct Changes(TokioSocket);

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Changes").finish_non_exhaustive()
    }
}

impl Changes {
    /// Begins to listen.
    ///
    /// # Errors
    /// Without the right to.
    pub(in crate::network) fn listen() -> Result<Self> {
        let listening = || {
            let socket = open(NETLINK_NETFILTER)?;
            socket.socket_ref().add_membership(GROUP)?;
            Ok(socket)
        };
        let socket = listening().map_err(|error| {
            Error::io(
                "changes of the host's firewall rules cannot be heard of",
                error,
            )
        })?;
        Ok(Self(socket))
    }

    /// Waits until something changed in one of these tables, or may have, since the kernel had more to tell than it
    /// keeps. May be dropped at any time.
    ///
    /// # Errors
    /// Where nothing can be heard of any more.
    pub(in crate::network) async fn of(&self, tables: &[&str]) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            match receive(&self.0, &mut buffer).await {
                Ok(()) if concern(&buffer, tables) => return Ok(()),
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether one of these notifications is about one of these tables; what cannot be read may be.
fn concern(bytes: &[u8], tables: &[&str]) -> bool {
    messages::<Message>(bytes).any(|message: io::Result<NetlinkMessage<Message>>| {
        match message.map(|message| message.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) if message.subsystem == SUBSYSTEM => message
                .text(TABLE)
                .is_some_and(|name| tables.contains(&name)),
            Ok(NetlinkPayload::Overrun(_)) | Err(_) => true,
            Ok(_) => false,
        }
    })
}

#[cfg(test)]
mod tests;

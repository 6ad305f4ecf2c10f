"""Sends one frame of each kind from the places around a bridge, and tells at which places each is seen.

A kind is named after who sends it, whom it is for, and what is wrong with it, where something is. The places and
addresses come as JSON on the standard input; a line `KIND at PLACE` goes out for each frame that is seen.
"""

import ctypes
import json
import select
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000
EVERYTHING = 0x0003
OUTGOING = 4
EVERYBODY = "ff:ff:ff:ff:ff:ff"
# How long the last frame may take, and how long it has to be quiet before nothing is expected any more.
QUIET = 0.3

given = json.load(sys.stdin)
mac, own, gateway, other = (given[key] for key in ("mac", "own", "gateway", "other"))
host_mac, other_mac, second_mac = (given[key] for key in ("host_mac", "other_mac", "second_mac"))
agent = given["agent"]


def hardware(text):
    return bytes.fromhex(text.replace(":", ""))


def ethernet(to, source, kind, body):
    return (hardware(to) + hardware(source) + struct.pack("!H", kind) + body).ljust(60, b"\0")


def arp(to, source, sender, sender_ip, target_ip):
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    addresses = hardware(sender) + socket.inet_aton(sender_ip) + bytes(6) + socket.inet_aton(target_ip)
    return ethernet(to, source, 0x0806, head + addresses)


def ip(to, source, sender_ip, target_ip, protocol, body):
    def head(checksum):
        addresses = socket.inet_aton(sender_ip) + socket.inet_aton(target_ip)
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, checksum) + addresses

    total = sum(struct.unpack("!10H", head(0)))
    total = (total & 0xFFFF) + (total >> 16)
    return ethernet(to, source, 0x0800, head(~(total + (total >> 16)) & 0xFFFF) + body)


def tagged(frame):
    """The frame as it goes out in a VLAN. Its receiver's kernel takes the tag off."""
    return frame[:12] + struct.pack("!HH", 0x8100, 7) + frame[12:]


def dhcp(source_port, target_port, client, transaction=0):
    body = bytes(4) + struct.pack("!I", transaction) + bytes(20) + hardware(client) + bytes(202)
    return struct.pack("!HHHH", source_port, target_port, 8 + len(body), 0) + body


def ip6(to, source, body):
    addresses = socket.inet_pton(socket.AF_INET6, "fe80::1") + socket.inet_pton(socket.AF_INET6, "ff02::1")
    return ethernet(to, source, 0x86DD, struct.pack("!IHBB", 6 << 28, len(body), 17, 64) + addresses + body)


def answer(source_port, target_port, more=b""):
    # Long enough that no padding follows, which a bridge may cut off.
    head = struct.pack("!HHIIBBHHH", source_port, target_port, 1, 1, 5 << 4, 0x10, 1024, 0, 0)
    return head + more.ljust(20, b"\0")


def request_for_address(
    sender_ip="0.0.0.0", ports=(68, 67), client=mac, target_ip="255.255.255.255", transaction=0
):
    return ip(EVERYBODY, mac, sender_ip, target_ip, 17, dhcp(*ports, client, transaction))


def of_link_protocol(last, source):
    """A frame that a bridge keeps to itself, by the last byte of its address."""
    return ethernet(f"01:80:c2:00:00:{last:02x}", source, 0x88CC, bytes(46))


def offer(ports=(67, 68), client=mac, transaction=0):
    return ip(mac, host_mac, gateway, own, 17, dhcp(*ports, client, transaction))


def from_agent(sender_ip=own, target_ip=gateway, port=agent, more=b""):
    return ip(host_mac, mac, sender_ip, target_ip, 6, answer(port, 40000, more))


def to_agent(sender_ip=gateway, target_ip=own, port=agent):
    return ip(mac, host_mac, sender_ip, target_ip, 6, answer(40000, port))


# What the wall would let through without its tag, and what is sent nowhere without one.
TAGGED = [
    ("guest", "DHCP request in a VLAN", request_for_address(transaction=1)),
    ("guest", "agent's answer in a VLAN", from_agent(more=b"in a VLAN")),
    ("host", "DHCP answer in a VLAN", offer(transaction=1)),
]
FRAMES = [
    ("guest", "ARP for the host", arp(EVERYBODY, mac, mac, own, gateway)),
    ("guest", "ARP probe", arp(EVERYBODY, mac, mac, "0.0.0.0", own)),
    ("guest", "ARP from a second address below", arp(EVERYBODY, second_mac, mac, own, gateway)),
    ("guest", "ARP of a second hardware address", arp(EVERYBODY, mac, second_mac, own, gateway)),
    ("guest", "ARP of another's address", arp(EVERYBODY, mac, mac, other, gateway)),
    ("guest", "ARP for another", arp(EVERYBODY, mac, mac, own, other)),
    ("guest", "DHCP request", request_for_address()),
    ("guest", "DHCP request of another's address", request_for_address(sender_ip=other)),
    ("guest", "DHCP request from another port", request_for_address(ports=(69, 67))),
    ("guest", "DHCP request to another port", request_for_address(ports=(68, 69))),
    ("guest", "DHCP request for a second hardware address", request_for_address(client=second_mac)),
    ("guest", "DHCP request, renewed", request_for_address(sender_ip=own, target_ip=gateway)),
    ("guest", "DHCP request to another address", request_for_address(target_ip=other)),
    ("guest", "DHCP request in IPv6", ip6(EVERYBODY, mac, dhcp(68, 67, mac))),
    ("guest", "agent's answer", from_agent()),
    ("guest", "agent's answer of another's address", from_agent(sender_ip=other)),
    ("guest", "agent's answer to another", from_agent(target_ip=other)),
    ("guest", "answer of another port", from_agent(port=agent + 1)),
    ("guest", "LACP of a second hardware address", of_link_protocol(0x02, second_mac)),
    ("guest", "802.1X of a second hardware address", of_link_protocol(0x03, second_mac)),
    ("guest", "LLDP of a second hardware address", of_link_protocol(0x0E, second_mac)),
    ("host", "ARP for the guest", arp(EVERYBODY, host_mac, host_mac, gateway, own)),
    ("host", "ARP for another", arp(EVERYBODY, host_mac, host_mac, gateway, other)),
    ("host", "DHCP answer", offer()),
    ("host", "DHCP answer from another port", offer(ports=(69, 68))),
    ("host", "DHCP answer to another port", offer(ports=(67, 69))),
    ("host", "DHCP answer for a second hardware address", offer(client=second_mac)),
    ("host", "DHCP answer in IPv6", ip6(mac, host_mac, dhcp(67, 68, mac))),
    ("host", "question to the agent", to_agent()),
    ("host", "question to the agent of another's address", to_agent(sender_ip=other)),
    ("host", "question to another's agent", to_agent(target_ip=other)),
    ("host", "question to another port", to_agent(port=agent + 1)),
    ("other", "ARP for the host", arp(EVERYBODY, other_mac, other_mac, other, gateway)),
    ("other", "802.1X of a third hardware address", of_link_protocol(0x03, given["third_mac"])),
]


def listen(namespace, device):
    """A socket belongs to the namespace in which it is made."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace, "rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "no way into the namespace")
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
    made.bind((device, EVERYTHING))
    return made


places = {place: listen(*at) for place, at in given["places"].items()}
# A frame may be seen with its tag or without.
seen_as = FRAMES + TAGGED + [(sender, what, tagged(frame)) for sender, what, frame in TAGGED]
names = {frame: f"{sender}: {what}" for sender, what, frame in seen_as}
assert len(names) == len(seen_as), "two frames are alike"
for sender, _, frame in FRAMES:
    places[sender].send(frame)
for sender, _, frame in TAGGED:
    places[sender].send(tagged(frame))
while ready := select.select(places.values(), [], [], QUIET)[0]:
    for place, heard in places.items():
        if heard not in ready:
            continue
        frame, (*_, kind, _, _) = heard.recvfrom(2048)
        if kind != OUTGOING and frame in names:
            print(f"{names[frame]}, at {place}")

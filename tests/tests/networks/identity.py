"""Takes a lease as one client, gives it up as another that claims to be the first, and takes one as that other.

The client identifier (option 61) is the same in all of it. It is given, as arguments, the device to send from, and each
client's hardware address and address.
"""

import socket
import struct
import sys

device, *clients = sys.argv[1:]
IDENTIFIER = b"\x00the same"
SOON = 20.0

wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
wire.bind((device, 0x0800))
wire.settimeout(SOON)


def send(mac, kind, own="0.0.0.0", options=b""):
    hardware = bytes.fromhex(mac.replace(":", ""))
    head = struct.pack("!BBBBIHH", 1, 1, 6, 0, 7, 0, 0x8000) + socket.inet_aton(own) + bytes(12)
    options = bytes([53, 1, kind, 61, len(IDENTIFIER)]) + IDENTIFIER + options + b"\xff"
    body = head + hardware.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + options
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    fields = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    addresses = socket.inet_aton(own) + socket.inet_aton("255.255.255.255")
    total = sum(struct.unpack("!10H", fields + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
    frame = b"\xff" * 6 + hardware + b"\x08\x00" + fields[:10] + checksum + addresses + udp
    wire.send(frame)


def answer(mac):
    """The kind of the server's answer to this client, and the address that it says."""
    while True:
        frame = wire.recv(2048)
        body = frame[42:]
        from_server = frame[34:38] == struct.pack("!HH", 67, 68)
        if from_server and body[28:34] == bytes.fromhex(mac.replace(":", "")):
            return body[242], socket.inet_ntoa(body[16:20]), body[240:]


def take(mac, address):
    send(mac, 1)
    kind, offered, options = answer(mac)
    assert (kind, offered) == (2, address), (kind, offered, address)
    # The server says who it is by option 54, which it puts right behind the kind.
    server = options[3:9]
    assert server[:2] == b"\x36\x04", options
    send(mac, 3, options=b"\x32\x04" + socket.inet_aton(address) + server)
    kind, got, _ = answer(mac)
    assert (kind, got) == (5, address), (kind, got, address)


first, second = clients[:2], clients[2:]
take(*first)
send(second[0], 7, own=first[1])
# The server takes what it hears in order: it has heard of that once it answers this.
take(*second)

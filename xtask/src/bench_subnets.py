"""How long python-see takes to pick a free /28 of a /8: one JSON object.

Its own functions. libvirt, which would tell the networks that are there, is played: 16 of them, told at once.
"""

import json
import sys
import time
import types

libvirt = types.ModuleType("libvirt")
libvirt.libvirtError = type("libvirtError", (Exception,), {})
sys.modules["libvirt"] = libvirt

from see.context.resources.network import generate_address  # noqa: E402

TAKEN = 16


class Network:
    """One that is there."""

    def __init__(self, number):
        self.number = number

    def XMLDesc(self, _flags):
        return '<network><ip address="10.0.%d.1" netmask="255.255.255.240"/></network>' % (
            self.number * 16)


class Hypervisor:
    """What knows them."""

    def listNetworks(self):
        return list(range(TAKEN))

    def networkLookupByName(self, number):
        return Network(number)


wanted = {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 28}
begin = time.perf_counter()
picked = generate_address(Hypervisor(), wanted)
seconds = time.perf_counter() - begin
assert picked.prefixlen == 28
print(json.dumps({"seconds": seconds, "free": 2 ** 20 - TAKEN}))

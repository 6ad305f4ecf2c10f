"""How long it takes python-see to make a sandbox and to remove it: one JSON object of seconds.

Arguments: a folder of its own, how often, and the context section, whose domain's XML is a file. Nothing is started.
The first sandbox is not counted, as with ours.
"""

import json
import logging
import sys
import time

import libvirt

from see import Environment
from see.context import QEMUContextFactory

logging.basicConfig(level=logging.ERROR)
folder, rounds, context = sys.argv[1:]
context = json.loads(context)
found = {"allocate": [], "deallocate": []}
for _ in range(int(rounds) + 1):
    environment = Environment(QEMUContextFactory(context), {"hooks": []})
    for action in found:
        begin = time.perf_counter()
        getattr(environment, action)()
        found[action].append(time.perf_counter() - begin)
# It leaves a pool over the folder of the image.
connection = libvirt.open(context["hypervisor"])
for pool in connection.listAllStoragePools():
    if "<path>%s" % folder in pool.XMLDesc():
        pool.destroy()
        pool.undefine()
print(json.dumps({action: seconds[1:] for action, seconds in found.items()}))

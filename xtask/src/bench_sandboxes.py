"""How long it takes python-see to make sandboxes and to remove them: one JSON object of seconds, as ours prints.

Arguments: a folder of its own, how often, how many at once, and the context section, whose domain's XML is a file.
Nothing is started. The first sandbox is not counted, as with ours.
"""

import concurrent.futures
import json
import logging
import sys
import time

import libvirt

from see import Environment
from see.context import QEMUContextFactory

logging.basicConfig(level=logging.ERROR)
folder, rounds, at_once, context = sys.argv[1:]
context = json.loads(context)


def one_after_the_other(rounds):
    measured = []
    for _ in range(rounds):
        environment = Environment(QEMUContextFactory(context), {"hooks": []})
        begin = time.perf_counter()
        environment.allocate()
        made = time.perf_counter()
        environment.deallocate()
        measured.append((made - begin, time.perf_counter() - made))
    return measured


one_after_the_other(1)
with concurrent.futures.ThreadPoolExecutor(int(at_once)) as threads:
    begin = time.perf_counter()
    working = [threads.submit(one_after_the_other, int(rounds)) for _ in range(int(at_once))]
    measured = [times for each in working for times in each.result()]
    end = time.perf_counter()
# It leaves a pool over the folder of the image.
connection = libvirt.open(context["hypervisor"])
for pool in connection.listAllStoragePools():
    if "<path>%s" % folder in pool.XMLDesc():
        pool.destroy()
        pool.undefine()
allocate, deallocate = zip(*measured)
print(json.dumps({"allocate": allocate, "deallocate": deallocate, "all": end - begin}))

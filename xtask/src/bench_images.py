"""Fetches one image through python-see's Glance provider, and says how long that took.

Reads what the provider is told from a file of JSON: `name`, `path` and `os_auth`.
"""

import json
import logging
import sys
import time

from see.image_providers.os_glance import GlanceProvider

logging.basicConfig(level=logging.ERROR)
with open(sys.argv[1]) as file:
    told = json.load(file)
provider = GlanceProvider({
    "name": told["name"],
    "provider_configuration": {"path": told["path"], "os_auth": told["os_auth"], "session": {}},
})
begin = time.monotonic()
image = provider.image
print(json.dumps({"seconds": time.monotonic() - begin, "image": image}))

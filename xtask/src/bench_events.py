"""The event bus of python-see, measured: one JSON line for each case."""

import json
import threading
import time

from see.observer import Observable

SECONDS = 0.4


def nothing(event):
    """A plain handler that looks at nothing."""


def rate(trigger):
    """Events a second, from a loop that lasts about SECONDS."""
    count = 64
    while True:
        started = time.perf_counter()
        for _ in range(count):
            trigger()
        elapsed = time.perf_counter() - started
        if elapsed >= SECONDS:
            return count / elapsed
        count *= 2


def plain():
    bus = Observable("plain")
    bus.subscribe("event", nothing)
    return rate(lambda: bus.trigger("event"))


def attribute():
    bus = Observable("attribute")
    bus.subscribe("event", nothing)
    return rate(lambda: bus.trigger("event", value=7))


def hundred():
    bus = Observable("hundred")
    for _ in range(100):
        bus.subscribe("event", lambda event: None)
    return rate(lambda: bus.trigger("event"))


def beside():
    """Counted until every handler has run, a thread each."""
    bus = Observable("beside")
    lock = threading.Lock()
    all_ran = threading.Event()
    wanted = 4000
    ran = 0

    def handler(event):
        nonlocal ran
        with lock:
            ran += 1
            if ran == wanted:
                all_ran.set()

    bus.subscribe_async("event", handler)
    started = time.perf_counter()
    for _ in range(wanted):
        bus.trigger("event")
    if not all_ran.wait(60):
        raise SystemExit("the handlers beside did not all run within 60 s")
    return wanted / (time.perf_counter() - started)


for case in (plain, attribute, hundred, beside):
    print(json.dumps({"case": case.__name__, "events_per_second": case()}), flush=True)

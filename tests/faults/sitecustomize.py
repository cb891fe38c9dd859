"""Faults for a program under test. Python imports this file first of all where its folder stands on PYTHONPATH.

FAULT="SIGINT open part/facts.json 2": that signal, the second time that the event's first argument ends with the word.
The events are those of sys.addaudithook: import, open, os.mkdir, os.rename, …
OUTSIDE=FILE: every address but this computer's own that is asked for is noted in the file, and refused.
"""

import os
import signal
import sys

# As in a terminal: tests that run in the background would hand on that Ctrl+C is to be ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOOPBACK = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "", None}


def inject(number, wanted, word, times="1"):
    left = int(times)

    def watch(event, arguments):
        nonlocal left
        if left and event == wanted and str(arguments[0]).replace(os.sep, "/").endswith(word):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.Signals[number])

    sys.addaudithook(watch)


def refuse_outside(file):
    def watch(event, arguments):
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]
            host = address[0] if isinstance(address, tuple) else None  # else a socket within this computer
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
        else:
            return
        if host not in LOOPBACK:
            with open(file, "a") as out:
                out.write(f"{event} {host}\n")
            raise OSError(f"{host} is outside")

    sys.addaudithook(watch)


if os.environ.get("FAULT"):
    inject(*os.environ["FAULT"].split())
if os.environ.get("OUTSIDE"):
    refuse_outside(os.environ["OUTSIDE"])

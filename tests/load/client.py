"""A visitor without a browser: it sends the events that a page sends, and reads the answers as they stream back."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBERS = itertools.count()


@dataclass
class Answer:
    """What an event led to. data: the outputs; first: seconds to the first of them, all: to the last; place: how many
    stood before it in the line, at worst."""

    data: list
    first: float
    all: float
    place: int


class Visitor:
    def __init__(self, port: int, config: dict):
        self.port, self.session = port, f"load{next(_NUMBERS)}"
        self.events = {event["api_name"]: event for event in config["dependencies"]}
        self.components = {component["id"]: component for component in config["components"]}

    def inputs(self, event: str) -> list:
        """What the page would send when nobody has touched it. None for what the server keeps itself."""
        return [self.components[id]["props"].get("value") for id in self.events[event]["inputs"]]

    def start(self, event: str, data: list) -> Iterator[tuple[dict, float]]:
        """Send an event; its messages as they come, and the seconds since. Closing the iterator cuts the connection."""
        began, connection = time.monotonic(), http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        call = {"data": data, "fn_index": self.events[event]["id"], "session_hash": self.session, "trigger_id": None,
                "event_data": None}
        try:
            connection.request("POST", "/gradio_api/queue/join", json.dumps(call), {"Content-Type": "application/json"})
            joined = connection.getresponse()
            told = json.loads(joined.read())
            if joined.status != 200:
                raise RuntimeError(f"{event} was refused with {joined.status}: {told}")
            connection.request("GET", f"/gradio_api/queue/data?session_hash={self.session}")
            for line in connection.getresponse():
                if line.startswith(b"data:"):
                    message = json.loads(line[5:])
                    yield message, time.monotonic() - began
                    if message["msg"] in ("process_completed", "close_stream"):
                        return
            raise RuntimeError(f"{event}: the server closed the connection before it answered")
        finally:
            connection.close()

    def ask(self, event: str, data: list) -> Answer:
        """RuntimeError if the server answers with an error."""
        first, place = None, 0
        for message, seconds in self.start(event, data):
            if message["msg"] == "estimation":
                place = max(place, message["rank"])
            if message["msg"] in ("process_generating", "process_completed"):
                first = seconds if first is None else first
            if message["msg"] == "process_completed":
                if not message["success"]:
                    raise RuntimeError(f"{event} failed: {message['output']}")
                return Answer(message["output"].get("data", []), first, seconds, place)
        raise RuntimeError(f"{event} ended without an answer")

"""The page's feed, read as the page reads it."""

import json


class Feed:
    """Events as a page reads them."""

    def __init__(self, client):
        self.connection = client.stream()
        self.file = self.connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.connection.close()

    def next(self):
        """The next event: its name and data."""
        name = ""
        while line := self.file.readline():
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                return name, json.loads(line[6:])
        raise AssertionError("the feed ended")

    def until(self, condition):
        while True:
            name, data = self.next()
            if condition(name, data):
                return data

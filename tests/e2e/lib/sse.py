"""Reads a stream of server-sent events as the HTML standard says, and tells what EventSource would hide."""

import dataclasses
import queue
import threading


@dataclasses.dataclass
class Block:
    """What stood between two blank lines. `event` is None where EventSource would fire nothing."""

    event: str | None = None
    data: str | None = None
    id: str | None = None
    retry: str | None = None
    comments: tuple = ()


def blocks(lines):
    """The blocks of an iterable of lines."""
    fields, data, comments = {}, [], []
    for line in lines:
        line = line.rstrip("\r\n")
        if line == "":
            if fields or data or comments:
                text = "\n".join(data) if data else None
                event = (fields.get("event") or "message") if data else None
                yield Block(event, text, fields.get("id"), fields.get("retry"), tuple(comments))
            fields, data, comments = {}, [], []
        elif line.startswith(":"):
            comments.append(line[1:].strip())
        else:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            else:
                fields[name] = value


class Stream:
    """Reads blocks in a thread of its own, so that a case can wait for one with a limit."""

    def __init__(self, lines):
        self._blocks = queue.Queue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines):
        try:
            for block in blocks(lines):
                self._blocks.put(block)
            self._blocks.put(None)
        except Exception as error:
            self._blocks.put(error)

    def next(self, accept, what, seconds=30):
        """The next block that is accepted; those before it are passed over."""
        seen = []
        while True:
            try:
                block = self._blocks.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(f"no {what} within {seconds} s; seen: {seen}") from None
            if isinstance(block, Exception):
                raise AssertionError(f"the stream broke ({block}) before {what}; seen: {seen}")
            assert block is not None, f"the stream ended before {what}; seen: {seen}"
            if accept(block):
                return block
            seen.append(block)

    def event(self, name, seconds=30):
        return self.next(lambda block: block.event == name, f"event {name}", seconds)

    def cursor(self, seconds=30):
        """The next block that holds an id and fires nothing."""
        return self.next(lambda block: block.id is not None and block.event is None, "bare id block", seconds).id

    def quiet(self, name, seconds=1.0):
        """No event of that name for so long. The stream may end meanwhile."""
        try:
            while (block := self._blocks.get(timeout=seconds)) is not None:
                if isinstance(block, Exception):
                    return
                assert block.event != name, f"unexpected {name}: {block}"
        except queue.Empty:
            return

    def end(self, seconds=30):
        """Waits for the end; the blocks before it."""
        seen = []
        while True:
            try:
                block = self._blocks.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(f"the stream did not end within {seconds} s; seen: {seen}") from None
            if block is None or isinstance(block, Exception):
                return seen
            seen.append(block)

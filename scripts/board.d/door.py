"""The way into the machine of scripts/board: takes connections on a port of its own and hands them on one after another.

QEMU keeps two connections waiting at most, and a third tries again after a second, then after three, seven and so on.
Here they wait until the one before had its first answer. While there is no machine, connections are closed at once.
"""

import collections
import selectors
import socket
import threading
import time

BACKLOG = 1024
CHUNK_BYTES = 65_536
# A machine that says nothing so long has taken the connection all the same.
ANSWER_S = 0.25
LOOK_S = 0.1


class Pipe:
    """One direction of a connection: what was read and is not written yet."""

    def __init__(self, source, sink):
        self.source, self.sink, self.waiting, self.is_over = source, sink, b"", False


class Door:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port = self.listener.getsockname()[1]
        self.target = None  # The port that leads to the machine, or None for closed.
        self.selector = selectors.DefaultSelector()
        self.listener.setblocking(False)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.waiting = collections.deque()
        self.entering, self.entered_at = None, 0
        self.pipes = {}  # A socket -> the pipe from it and the pipe to it.
        self.is_over = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def close(self):
        self.is_over = True
        self.thread.join()

    def run(self):
        while not self.is_over:
            for key, events in self.selector.select(LOOK_S):
                if key.fileobj is self.listener:
                    self.accept()
                    continue
                if events & selectors.EVENT_READ and key.fileobj in self.pipes:
                    self.read(key.fileobj)
                if events & selectors.EVENT_WRITE and key.fileobj in self.pipes:
                    self.write(key.fileobj)
            self.let_in()
        for end in [self.listener, *self.waiting, *self.pipes]:
            end.close()

    def accept(self):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        client.setblocking(False)
        self.waiting.append(client)

    def let_in(self):
        if self.entering and time.monotonic() - self.entered_at > ANSWER_S:
            self.entering = None
        while self.waiting and not self.entering:
            client, target = self.waiting.popleft(), self.target
            try:
                if target is None:
                    raise ConnectionRefusedError
                machine = socket.create_connection(("127.0.0.1", target), timeout=1)
            except OSError:
                client.close()
                continue
            self.entering, self.entered_at = machine, time.monotonic()
            there, back = Pipe(client, machine), Pipe(machine, client)
            for end, pipes in ((client, (there, back)), (machine, (back, there))):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.pipes[end] = pipes
                self.selector.register(end, selectors.EVENT_READ)

    def read(self, end):
        outgoing = self.pipes[end][0]
        if end is self.entering:
            self.entering = None
        try:
            more = end.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        outgoing.waiting += more
        outgoing.is_over = not more
        self.write(outgoing.sink)

    def write(self, end):
        incoming = self.pipes[end][1]
        try:
            incoming.waiting = incoming.waiting[end.send(incoming.waiting) :] if incoming.waiting else b""
        except BlockingIOError:
            pass
        except OSError:
            incoming.waiting, incoming.is_over = b"", True
        if incoming.is_over and not incoming.waiting:
            self.end(end)
        else:
            self.watch(end)
            self.watch(incoming.source)

    def watch(self, end):
        """Reads no more than the other side takes."""
        outgoing, incoming = self.pipes[end]
        events = selectors.EVENT_READ if len(outgoing.waiting) < CHUNK_BYTES and not outgoing.is_over else 0
        events |= selectors.EVENT_WRITE if incoming.waiting else 0
        registered = end in self.selector.get_map()
        if registered and not events:
            self.selector.unregister(end)
        elif registered:
            self.selector.modify(end, events)
        elif events:
            self.selector.register(end, events)

    def end(self, end):
        """The end of both sides: what one had to say, the other has."""
        for side in (end, self.pipes[end][0].sink):
            if side in self.selector.get_map():
                self.selector.unregister(side)
            del self.pipes[side]
            side.close()
            if side is self.entering:
                self.entering = None

#!/usr/bin/env python3
"""The paho-mqtt client (PyPI) against a broker: MQTT 3.1, 3.1.1 and 5.0.

usage: paho-mqtt.py HOST PORT [WEBSOCKET_PORT]

Prints `ok   paho/VERSION CHECK` or `FAIL paho/VERSION CHECK: reason` for each check. The exit code is not zero if one
failed. With WEBSOCKET_PORT some checks are repeated over WebSocket, as VERSION+ws.

One thread drives the clients: `pump` selects over their sockets, `wait` pumps until something has happened or the
time limit is over. That something does *not* come is shown by `settle`, which sends markers round through the broker
behind whatever could still be under way. A check that needs real time to pass is a generator: it sets up, yields
the seconds it wants to be left alone while other checks run, and is then taken up again.
"""

import inspect
import random
import select
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST = sys.argv[1]
PORTS = {"tcp": int(sys.argv[2])}
if sys.argv[3:] and sys.argv[3]:
    PORTS["websockets"] = int(sys.argv[3])
PROTOCOLS = {"v31": mqtt.MQTTv31, "v311": mqtt.MQTTv311, "v5": mqtt.MQTTv5}
TIMEOUT_S = 15
BULK_MESSAGES = 20_000
SETTLE = "settle/"

live = set()


class Failed(Exception):
    """What a check found wrong, in words."""


def require(condition, text):
    if not condition:
        raise Failed(text)


def same(seen, expected, what):
    """Two lists must be equal; the first difference is shown, not 20,000 entries."""
    seen, expected = list(seen), list(expected)
    if seen == expected:
        return
    at = 0
    while at < min(len(seen), len(expected)) and seen[at] == expected[at]:
        at += 1
    show = [repr(part[at : at + 2])[:120] for part in (seen, expected)]
    raise Failed(f"{what}: {len(seen)} seen, {len(expected)} expected; from {at} on saw {show[0]}, expected {show[1]}")


def properties(packet, **values):
    made = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(made, name, value)
    return made


def pump(timeout_s=0.05):
    """One round of reading, writing and pinging for every live client."""
    sockets = {peer.client.socket(): peer for peer in live if peer.client.socket() is not None}
    writing = [socket for socket, peer in sockets.items() if peer.client.want_write()]
    readable, writable, _ = select.select(list(sockets), writing, [], timeout_s)
    for socket in writable:
        sockets[socket].client.loop_write()
    for socket in readable:
        client = sockets[socket].client
        # Until nothing more is there: a packet a turn would spend the time in select.
        for _ in range(50):
            before = sockets[socket].packets_seen()
            if client.socket() is not socket or client.loop_read() != mqtt.MQTT_ERR_SUCCESS:
                break
            if sockets[socket].packets_seen() == before:
                break
    for peer in sockets.values():
        peer.client.loop_misc()


def wait(condition, what, timeout_s=TIMEOUT_S):
    until = time.monotonic() + timeout_s
    while not condition():
        require(time.monotonic() < until, f"no {what} within {timeout_s} s")
        pump()


class Seen(NamedTuple):
    """A message as it arrived: paho's own object changes afterwards."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    mid: int
    properties: Properties
    at: float


class Peer:
    """One paho client and all that it saw."""

    def __init__(self, version, client_id, clean=True, will=None, expiry_s=300, transport="tcp", **options):
        self.version = version
        self.port = PORTS[transport]
        self.clean = clean
        self.messages = []
        self.settled = 0
        self.connack = None
        self.acks = {}
        self.subacks = {}
        self.unsubacks = {}
        self.gone = None
        self.keep_alive_s = options.pop("keep_alive_s", 60)
        self.connect_properties = None
        if version == "v5":
            values = options.pop("connect", {})
            if not clean:
                values = {"SessionExpiryInterval": expiry_s, **values}
            self.connect_properties = properties("CONNECT", **values)
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=PROTOCOLS[version],
            clean_session=None if version == "v5" else clean,
            transport=transport,
            reconnect_on_failure=False,
            manual_ack=options.pop("manual_ack", False),
        )
        self.client.max_inflight_messages_set(options.pop("inflight", 100))
        if will:
            self.client.will_set(**will)
        require(not options, f"unknown options {options}")
        self.client.on_connect = self.saw_connack
        self.client.on_message = self.saw_message
        self.client.on_publish = self.saw_ack
        self.client.on_subscribe = self.saw_suback
        self.client.on_unsubscribe = self.saw_unsuback
        self.client.on_disconnect = self.saw_end

    def saw_connack(self, _client, _data, flags, reason, values):
        self.connack = SimpleNamespace(session_present=flags.session_present, reason=reason, properties=values)

    def saw_message(self, _client, _data, message):
        if message.topic.startswith(SETTLE):
            self.settled += 1
            return
        seen = Seen(
            message.topic,
            bytes(message.payload),
            message.qos,
            message.retain,
            message.dup,
            message.mid,
            message.properties,
            message.timestamp,
        )
        self.messages.append(seen)

    def saw_ack(self, _client, _data, mid, reason, _properties):
        self.acks[mid] = reason

    def saw_suback(self, _client, _data, mid, reasons, _properties):
        self.subacks[mid] = reasons

    def saw_unsuback(self, _client, _data, mid, reasons, _properties):
        self.unsubacks[mid] = reasons

    def saw_end(self, _client, _data, flags, reason, _properties):
        self.gone = SimpleNamespace(by_packet=flags.is_disconnect_packet_from_server, reason=reason)

    def packets_seen(self):
        return len(self.messages) + len(self.acks) + self.settled

    def connect(self):
        self.connack = self.gone = None
        live.add(self)
        if self.version == "v5":
            self.client.connect(
                HOST, self.port, self.keep_alive_s, clean_start=self.clean, properties=self.connect_properties
            )
        else:
            self.client.connect(HOST, self.port, self.keep_alive_s)
        return self.connected()

    def reconnect(self):
        """The same client object with what it still holds in flight."""
        self.connack = self.gone = None
        live.add(self)
        self.client.reconnect()
        return self.connected()

    def connected(self):
        wait(lambda: self.connack or self.gone, "CONNACK")
        require(self.connack, f"connection closed before CONNACK: {self.gone}")
        require(not self.connack.reason.is_failure, f"refused: {self.connack.reason}")
        return self

    def disconnect(self, reason=None):
        self.client.disconnect(**({"reasoncode": reason} if reason else {}))
        wait(lambda: self.gone, "end after DISCONNECT")
        live.discard(self)

    def cut(self):
        """The socket goes away without a DISCONNECT."""
        live.discard(self)
        if self.client.socket() is not None:
            self.client._sock_close()

    def subscribe(self, *arguments, **options):
        """Subscribes and returns the list of granted QoS or reason codes."""
        code, mid = self.client.subscribe(*arguments, **options)
        require(code == mqtt.MQTT_ERR_SUCCESS, f"subscribe: {mqtt.error_string(code)}")
        wait(lambda: mid in self.subacks, f"SUBACK for {str(arguments)[:80]}")
        return [reason.value for reason in self.subacks[mid]]

    def unsubscribe(self, *arguments):
        _, mid = self.client.unsubscribe(*arguments)
        wait(lambda: mid in self.unsubacks, "UNSUBACK")
        return [reason.value for reason in self.unsubacks[mid]]

    def publish(self, topic, payload=b"", qos=0, retain=False, **values):
        """Publishes, waits for the acknowledgement and returns its reason code."""
        mid = self.send(topic, payload, qos, retain, **values)
        if qos == 0:
            wait(lambda: not self.client.want_write(), "written PUBLISH")
            return 0
        wait(lambda: mid in self.acks or self.gone, f"acknowledgement for {topic}")
        require(mid in self.acks, f"connection ended before the acknowledgement for {topic}: {self.gone}")
        return self.acks[mid].value

    def send(self, topic, payload=b"", qos=0, retain=False, **values):
        made = properties("PUBLISH", **values) if values else None
        return self.client.publish(topic, payload, qos, retain, properties=made).mid

    def acknowledged(self, count, timeout_s=TIMEOUT_S):
        """All of `count` messages sent so far with QoS 1 or 2."""
        wait(lambda: len(self.acks) >= count or self.gone, f"{count} acknowledgements", timeout_s)
        require(len(self.acks) >= count, f"connection ended with {len(self.acks)} of {count} acknowledged")

    def receive(self, count, timeout_s=TIMEOUT_S):
        """At least `count` messages since the start or the last `forget`."""
        try:
            wait(lambda: len(self.messages) >= count or self.gone, "message", timeout_s)
        except Failed:
            raise Failed(f"{len(self.messages)} of {count} messages within {timeout_s} s") from None
        require(len(self.messages) >= count, f"connection ended after {len(self.messages)} of {count}: {self.gone}")
        return self.messages

    def exactly(self, count):
        """As `receive`, and none beyond."""
        self.receive(count)
        self.settle()
        require(
            len(self.messages) == count,
            f"{len(self.messages)} messages instead of {count}, among them "
            f"{[(m.topic, m.payload[:20]) for m in self.messages[count:][:3]]}",
        )
        return self.messages

    def forget(self):
        self.messages.clear()

    def settle(self):
        """Three markers out and back: what was under way before has arrived."""
        topic = SETTLE + self.client._client_id.decode()
        self.subscribe(topic, 0)
        for _ in range(3):
            before = self.settled
            self.send(topic)
            wait(lambda before=before: self.settled > before or self.gone, "marker")
            require(not self.gone, f"connection ended: {self.gone}")


class World:
    """What one check needs: its version, a topic prefix of its own, and its clients."""

    def __init__(self, version, number, transport):
        self.version = version
        self.transport = transport
        self.label = version if transport == "tcp" else f"{version}+ws"
        self.prefix = f"interop/paho/{version}-{transport}/{number}"
        self.id = f"paho-{version}-{transport}-{number}"
        self.peers = []

    def new(self, name, **options):
        peer = Peer(self.version, f"{self.id}-{name}", transport=self.transport, **options)
        self.peers.append(peer)
        return peer

    def peer(self, name, **options):
        return self.new(name, **options).connect()

    def topic(self, name):
        return f"{self.prefix}/{name}"

    def close(self):
        for peer in self.peers:
            peer.cut()
        self.peers.clear()


ALL = ("v31", "v311", "v5")
BOTH = ("tcp", "websockets")
checks = []


class Check(NamedTuple):
    name: str
    versions: tuple
    transports: tuple
    function: Callable
    arguments: dict


def check(name, versions=ALL, qos=None, transports=("tcp",)):
    """Registers a check, or one for each QoS in a tuple."""

    def register(function):
        for arguments in [{}] if qos is None else [{"qos": level} for level in qos]:
            checks.append(Check(name.format(**arguments), versions, transports, function, arguments))
        return function

    return register


# ---- The basics, in every version -----------------------------------------------------------------------------------


@check("connect, and a clean session is not present", transports=BOTH)
def connects(w):
    peer = w.peer("a")
    require(not peer.connack.session_present, "session present")
    peer.disconnect()


@check("an empty client id is accepted", versions=("v311", "v5"))
def empty_client_id(w):
    peer = Peer(w.version, "")
    w.peers.append(peer)
    peer.connect()
    if w.version == "v5":
        assigned = getattr(peer.connack.properties, "AssignedClientIdentifier", "")
        require(assigned, "no Assigned Client Identifier")
    peer.subscribe(w.topic("a"), 1)
    peer.publish(w.topic("a"), b"x", 1)
    peer.receive(1)


@check("a client id of 200 bytes is accepted")
def long_client_id(w):
    w.peer("l" * 200).settle()


@check("qos{qos}: 200 messages, exact and in order", qos=(0, 1, 2), transports=BOTH)
def delivers(w, qos):
    # Empty, binary and of many lengths, among them those at the edge of a one- and two-byte remaining length.
    payloads = [b"", bytes(range(256))] + [b"%d:" % i + b"x" * (i * 97 % 600) for i in range(198)]
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    same(subscriber.subscribe(w.topic("t"), qos), [qos], "granted")
    mids = [publisher.send(w.topic("t"), payload, qos) for payload in payloads]
    if qos:
        publisher.acknowledged(200)
        same(sorted(publisher.acks), sorted(mids), "acknowledged")
    messages = subscriber.exactly(200)
    same([m.payload for m in messages], payloads, "payloads")
    same({(m.topic, m.qos, m.retain, m.dup) for m in messages}, [(w.topic("t"), qos, False, False)], "header")


@check("qos is the lower of published and granted")
def lower_qos(w):
    publisher = w.peer("pub")
    for granted in (0, 1, 2):
        subscriber = w.peer(f"sub{granted}")
        same(subscriber.subscribe(w.topic("t"), granted), [granted], "granted")
        for qos in (0, 1, 2):
            publisher.publish(w.topic("t"), b"%d" % qos, qos)
        seen = sorted((m.payload, m.qos) for m in subscriber.exactly(3))
        same(seen, [(b"%d" % qos, min(qos, granted)) for qos in (0, 1, 2)], f"granted {granted}")


@check("retained: live without the flag, later with it, replaced, cleared by an empty payload", transports=BOTH)
def retained(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    subscriber.subscribe(w.topic("+"), 1)
    publisher.publish(w.topic("r"), b"old", 1, retain=True)
    publisher.publish(w.topic("r"), b"new", 1, retain=True)
    publisher.publish(w.topic("r"), b"passing", 1)
    same(
        [(m.payload, m.retain) for m in subscriber.exactly(3)],
        [(b"old", False), (b"new", False), (b"passing", False)],
        "live",
    )
    late = w.peer("late")
    late.subscribe(w.topic("+"), 1)
    same([(m.payload, m.retain, m.qos) for m in late.exactly(1)], [(b"new", True, 1)], "late")
    subscriber.forget()
    publisher.publish(w.topic("r"), b"", 1, retain=True)
    same([(m.payload, m.retain) for m in subscriber.exactly(1)], [(b"", False)], "clearing")
    last = w.peer("last")
    last.subscribe(w.topic("+"), 1)
    last.exactly(0)


@check("retained: all of 300 arrive by a wildcard, and again at each subscribe", transports=BOTH)
def retained_many(w):
    publisher, subscriber = w.peer("pub"), w.peer("sub")
    expected = {w.topic(f"{i}/state"): b"%d" % i for i in range(300)}
    for topic, payload in expected.items():
        publisher.send(topic, payload, 1, retain=True)
    publisher.acknowledged(300)
    for turn in ("first", "second"):
        subscriber.subscribe(w.topic("+/state"), 1)
        messages = subscriber.exactly(300)
        require(all(m.retain for m in messages), f"{turn}: no retain flag")
        same(sorted((m.topic, m.payload) for m in messages), sorted(expected.items()), turn)
        subscriber.forget()
    for topic in expected:
        publisher.send(topic, b"", 0, retain=True)
    publisher.settle()


@check("will: sent when the socket is cut, retained if asked", transports=BOTH)
def will_sent(w):
    observer = w.peer("observer")
    observer.subscribe(w.topic("will"), 2)
    victim = w.peer("victim", will={"topic": w.topic("will"), "payload": b"gone", "qos": 2, "retain": True})
    observer.exactly(0)
    victim.cut()
    same([(m.payload, m.qos, m.retain) for m in observer.exactly(1)], [(b"gone", 2, False)], "will")
    late = w.peer("late")
    late.subscribe(w.topic("will"), 1)
    same([(m.payload, m.retain) for m in late.exactly(1)], [(b"gone", True)], "retained will")
    late.publish(w.topic("will"), b"", 1, retain=True)


@check("will: not sent after DISCONNECT", transports=BOTH)
def will_withdrawn(w):
    observer = w.peer("observer")
    observer.subscribe(w.topic("will"), 2)
    w.peer("victim", will={"topic": w.topic("will"), "payload": b"gone", "qos": 1}).disconnect()
    observer.exactly(0)


@check("durable session: present again, queued qos1 and qos2 arrive in order, once", transports=BOTH)
def durable(w):
    first = w.peer("sub", clean=False)
    require(not first.connack.session_present, "present before it was made")
    first.subscribe([(w.topic("q1"), 1), (w.topic("q2"), 2)])
    first.disconnect()
    publisher = w.peer("pub")
    for i in range(100):
        publisher.send(w.topic(f"q{1 + i % 2}"), b"%d" % i, 1 + i % 2)
    publisher.acknowledged(100)
    # A restart of the program: nothing left in the client's memory.
    second = w.peer("sub", clean=False)
    if w.version != "v31":
        require(second.connack.session_present, "session not present")
    messages = second.exactly(100)
    for qos in (1, 2):
        seen = [m.payload for m in messages if m.topic == w.topic(f"q{qos}") and m.qos == qos]
        same(seen, [b"%d" % i for i in range(qos - 1, 100, 2)], f"qos {qos}")
    second.forget()
    publisher.publish(w.topic("q1"), b"again", 1)
    same([m.payload for m in second.exactly(1)], [b"again"], "subscription kept")
    second.disconnect()
    publisher.publish(w.topic("q1"), b"to be dropped", 1)
    third = w.peer("sub", clean=True)
    require(not third.connack.session_present, "present after a clean start")
    third.exactly(0)
    publisher.publish(w.topic("q1"), b"to be dropped", 1)
    third.exactly(0)


@check("durable session: subscriber's qos1 without acknowledgement comes again with dup")
def redelivers(w):
    subscriber = w.peer("sub", clean=False, manual_ack=True)
    subscriber.subscribe(w.topic("t"), 1)
    publisher = w.peer("pub")
    for i in range(10):
        publisher.publish(w.topic("t"), b"%d" % i, 1)
    subscriber.exactly(10)
    subscriber.cut()
    subscriber.forget()
    subscriber.reconnect()
    again = [(m.payload, m.dup) for m in subscriber.exactly(10)]
    same(again, [(b"%d" % i, True) for i in range(10)], "second delivery")
    for message in subscriber.messages:
        subscriber.client.ack(message.mid, message.qos)
    subscriber.settle()
    subscriber.cut()
    subscriber.forget()
    subscriber.reconnect()
    subscriber.exactly(0)


@check("durable session: every qos{qos} message over cuts of both sides, and at qos2 once", qos=(1, 2))
def survives_cuts(w, qos):
    subscriber = w.peer("sub", clean=False)
    subscriber.subscribe(w.topic("t"), qos)
    publisher = w.peer("pub", clean=False, inflight=10)
    for i in range(300):
        publisher.send(w.topic("t"), b"%d" % i, qos)
    for so_far in (20, 60, 100):
        subscriber.receive(so_far)
        publisher.cut()
        publisher.reconnect()
        subscriber.receive(so_far + 20)
        subscriber.cut()
        subscriber.reconnect()
    publisher.acknowledged(300)
    everything = {b"%d" % i for i in range(300)}
    wait(lambda: {m.payload for m in subscriber.messages} == everything, "complete set of 300")
    subscriber.settle()
    if qos == 2:
        twice = [n for n, times in Counter(m.payload for m in subscriber.messages).items() if times > 1]
        require(not twice, f"delivered twice: {twice[:5]}")


@check("wildcards: + and # match what they should and nothing else")
def wildcards(w):
    topics = ["a", "a/b", "a/b/c", "a/c/c", "/a", "a//c", "b/a", "b/a/"]
    expected = {
        "#": topics,
        "a/#": ["a", "a/b", "a/b/c", "a/c/c", "a//c"],
        "a/+": ["a/b"],
        "a/+/c": ["a/b/c", "a/c/c", "a//c"],
        "+": ["a"],
        "+/a": ["/a", "b/a"],
        "+/+/+": ["a/b/c", "a/c/c", "a//c", "b/a/"],
        "b/a/#": ["b/a", "b/a/"],
        "b/a/+": ["b/a/"],
        "a/b/c/d": [],
    }
    subscribers = {}
    for number, pattern in enumerate(expected):
        subscribers[pattern] = w.peer(f"sub{number}")
        subscribers[pattern].subscribe(w.topic(pattern), 1)
    publisher = w.peer("pub")
    for topic in topics:
        publisher.publish(w.topic(topic), topic.encode(), 1)
    for pattern, wanted in expected.items():
        messages = subscribers[pattern].exactly(len(wanted))
        same([m.payload.decode() for m in messages], wanted, pattern)


@check("wildcards: # leaves out $ topics")
def dollar_topics(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    subscriber.subscribe("#", 0)
    publisher.publish(w.topic("t"), b"x", 0)
    wait(lambda: any(m.topic == w.topic("t") for m in subscriber.messages), "message by #")
    subscriber.settle()
    found = [m.topic for m in subscriber.messages if m.topic.startswith("$")]
    require(not found, f"got {found[:3]}")


@check("overlapping subscriptions: at least one copy, at the highest qos, at most one each")
def overlapping(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    same(subscriber.subscribe([(w.topic("#"), 1), (w.topic("+"), 2), (w.topic("x"), 0)]), [1, 2, 0], "granted")
    for i in range(10):
        publisher.publish(w.topic("x"), b"%d" % i, 2)
    subscriber.receive(10)
    subscriber.settle()
    for i in range(10):
        copies = sorted(m.qos for m in subscriber.messages if m.payload == b"%d" % i)
        require(1 <= len(copies) <= 3 and copies[-1] == 2, f"message {i} came with qos {copies}")


@check("subscribing again replaces the subscription")
def subscribes_again(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    subscriber.subscribe(w.topic("t"), 2)
    same(subscriber.subscribe(w.topic("t"), 0), [0], "granted")
    publisher.publish(w.topic("t"), b"x", 2)
    same([(m.payload, m.qos) for m in subscriber.exactly(1)], [(b"x", 0)], "after the second")


@check("50 filters in one SUBSCRIBE and UNSUBSCRIBE")
def many_filters(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    granted = subscriber.subscribe([(w.topic(f"f{i}"), i % 3) for i in range(50)])
    same(granted, [i % 3 for i in range(50)], "granted")
    for i in range(50):
        publisher.publish(w.topic(f"f{i}"), b"x", 0)
    subscriber.exactly(50)
    subscriber.unsubscribe([w.topic(f"f{i}") for i in range(50)])
    subscriber.forget()
    for i in range(50):
        publisher.publish(w.topic(f"f{i}"), b"x", 0)
    subscriber.exactly(0)


@check("unsubscribe ends one filter and leaves the other; an unknown filter is acknowledged")
def unsubscribes(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    subscriber.subscribe([(w.topic("a"), 1), (w.topic("b"), 1)])
    subscriber.unsubscribe(w.topic("a"))
    subscriber.unsubscribe(w.topic("never"))
    publisher.publish(w.topic("a"), b"a", 1)
    publisher.publish(w.topic("b"), b"b", 1)
    same([m.payload for m in subscriber.exactly(1)], [b"b"], "after unsubscribe")


@check("take-over: the same client id ends the first connection and keeps the durable session", transports=BOTH)
def take_over(w):
    first = w.peer("same", clean=False)
    first.subscribe(w.topic("t"), 1)
    second = w.peer("same", clean=False)
    wait(lambda: first.gone, "end of the first connection")
    if w.version != "v31":
        require(second.connack.session_present, "session not present")
    w.peer("pub").publish(w.topic("t"), b"x", 1)
    second.exactly(1)
    require(not first.messages, "the first connection got a message")


@check("1 MB payload at qos{qos}", qos=(0, 1, 2), transports=BOTH)
def large(w, qos):
    payload = random.Random(qos).randbytes(1 << 20)
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    subscriber.subscribe(w.topic("t"), qos)
    publisher.publish(w.topic("t"), payload, qos)
    publisher.publish(w.topic("t"), b"after", qos)
    messages = subscriber.exactly(2)
    require(messages[0].payload == payload, "payload differs")
    same([messages[1].payload], [b"after"], "message behind it")


@check("1 MB payload, retained", transports=BOTH)
def large_retained(w):
    payload = random.Random(7).randbytes(1 << 20)
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    publisher.publish(w.topic("t"), payload, 1, retain=True)
    subscriber.subscribe(w.topic("t"), 1)
    messages = subscriber.exactly(1)
    require(messages[0].payload == payload and messages[0].retain, "payload or flag differs")
    publisher.publish(w.topic("t"), b"", 1, retain=True)


@check("keep-alive: 2 s, and still connected after 5 s of silence", transports=BOTH)
def keep_alive(w):
    peer = w.peer("a", keep_alive_s=2)
    peer.subscribe(w.topic("t"), 1)
    # By paho's own thread: what the other checks do must not delay its pings.
    live.discard(peer)
    peer.client.loop_start()
    yield 5
    peer.client.loop_stop()
    live.add(peer)
    require(not peer.gone, f"connection ended: {peer.gone}")
    peer.publish(w.topic("t"), b"x", 1)
    peer.exactly(1)


@check("keep-alive: a silent client is closed after one and a half of it, and its will sent")
def silent(w):
    observer = w.peer("observer")
    observer.subscribe(w.topic("will"), 1)
    victim = w.peer("victim", keep_alive_s=2, will={"topic": w.topic("will"), "payload": b"silent"})
    since = time.monotonic()
    # No longer driven: neither pings nor sees anything.
    live.discard(victim)
    yield 3
    observer.receive(1)
    after_s = observer.messages[0].at - since
    require(after_s >= 2.9, f"closed after {after_s:.1f} s")


@check(f"{BULK_MESSAGES:,} messages at qos{{qos}}: none lost, none doubled, order kept", qos=(1, 2))
def bulk(w, qos):
    subscriber, publisher = w.peer("sub"), w.peer("pub", inflight=100)
    subscriber.subscribe(w.topic("t"), qos)
    for i in range(BULK_MESSAGES):
        publisher.send(w.topic("t"), b"%d" % i, qos)
        if i % 100 == 99:
            pump(0)
    publisher.acknowledged(BULK_MESSAGES, timeout_s=60)
    subscriber.receive(BULK_MESSAGES)
    subscriber.settle()
    same([int(m.payload) for m in subscriber.messages], range(BULK_MESSAGES), "messages")


# ---- 5.0 ------------------------------------------------------------------------------------------------------------

V5 = ("v5",)


@check("properties: user properties, content type, response topic, correlation data, format are forwarded", versions=V5)
def forwards_properties(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    subscriber.subscribe(w.topic("t"), 1)
    pairs = [("b", "2"), ("a", "1"), ("b", "3"), ("", ""), ("ü", "名")]
    for qos in (0, 1, 2):
        publisher.publish(
            w.topic("t"),
            b"x",
            qos,
            UserProperty=pairs,
            ContentType="text/plain",
            ResponseTopic=w.topic("answer"),
            CorrelationData=b"\x00\x01\xff",
            PayloadFormatIndicator=1,
        )
    for message in subscriber.exactly(3):
        seen = message.properties
        same(seen.UserProperty, pairs, "user properties")
        same([seen.ContentType], ["text/plain"], "content type")
        same([seen.ResponseTopic], [w.topic("answer")], "response topic")
        same([seen.CorrelationData], [b"\x00\x01\xff"], "correlation data")
        same([seen.PayloadFormatIndicator], [1], "payload format")


@check("properties: kept by a retained message, a queued message and a will", versions=V5)
def keeps_properties(w):
    pairs = [("k", "v"), ("k", "w")]
    publisher, sleeper = w.peer("pub"), w.peer("sleeper", clean=False)
    sleeper.subscribe(w.topic("+"), 1)
    sleeper.disconnect()
    publisher.publish(w.topic("retained"), b"x", 1, retain=True, UserProperty=pairs)
    will = {"topic": w.topic("will"), "payload": b"x", "qos": 1}
    victim = w.peer("victim", will={**will, "properties": properties("WILLMESSAGE", UserProperty=pairs)})
    observer = w.peer("observer")
    observer.subscribe(w.topic("+"), 1)
    observer.receive(1)
    victim.cut()
    observer.exactly(2)
    sleeper = w.peer("sleeper", clean=False)
    sleeper.exactly(2)
    for message in observer.messages + sleeper.messages:
        same(getattr(message.properties, "UserProperty", []), pairs, message.topic)
    publisher.publish(w.topic("retained"), b"", 1, retain=True)


@check("message expiry: an expired message is not delivered, another comes with the time left", versions=V5)
def message_expiry(w):
    subscriber, publisher = w.peer("sub", clean=False), w.peer("pub")
    subscriber.subscribe(w.topic("t"), 1)
    subscriber.disconnect()
    publisher.publish(w.topic("t"), b"short", 1, MessageExpiryInterval=1)
    publisher.publish(w.topic("t"), b"long", 1, MessageExpiryInterval=1000)
    publisher.publish(w.topic("r/short"), b"short", 1, retain=True, MessageExpiryInterval=1)
    publisher.publish(w.topic("r/long"), b"long", 1, retain=True, MessageExpiryInterval=1000)
    since = time.monotonic()
    yield 3
    subscriber = w.peer("sub", clean=False)
    subscriber.subscribe(w.topic("r/+"), 1)
    messages = subscriber.exactly(2)
    same([m.payload for m in messages], [b"long", b"long"], "delivered")
    for message in messages:
        left = getattr(message.properties, "MessageExpiryInterval", None)
        away_s = message.at - since
        require(left is not None, f"{message.topic}: no expiry interval")
        require(abs(1000 - away_s - left) < 1.5, f"{message.topic}: {left} of 1000 s left after {away_s:.1f} s")
    publisher.publish(w.topic("r/long"), b"", 1, retain=True)


@check("session expiry: kept within the interval, gone after it", versions=V5)
def session_expiry(w):
    for name, expiry_s in (("short", 1), ("long", 1000), ("zero", 0)):
        peer = w.peer(name, clean=False, expiry_s=expiry_s)
        peer.subscribe(w.topic("t"), 1)
        peer.disconnect()
    # DISCONNECT can change the interval of a session.
    changed = w.peer("changed", clean=False, expiry_s=1)
    changed.client.disconnect(properties=properties("DISCONNECT", SessionExpiryInterval=1000))
    yield 3
    for name, present in (("short", False), ("long", True), ("zero", False), ("changed", True)):
        peer = w.peer(name, clean=False)
        require(peer.connack.session_present == present, f"{name}: session present is {peer.connack.session_present}")


@check("topic alias: set once, then used with an empty topic, then set anew", versions=V5)
def topic_alias(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    require(getattr(publisher.connack.properties, "TopicAliasMaximum", 0) >= 2, "no Topic Alias Maximum in CONNACK")
    subscriber.subscribe(w.topic("#"), 1)
    publisher.publish(w.topic("one"), b"1", 1, TopicAlias=1)
    publisher.publish("", b"2", 1, TopicAlias=1)
    publisher.publish(w.topic("two"), b"3", 1, TopicAlias=2)
    publisher.publish("", b"4", 0, TopicAlias=1)
    publisher.publish("", b"5", 0, TopicAlias=2)
    publisher.publish(w.topic("three"), b"6", 1, TopicAlias=1)
    publisher.publish("", b"7", 1, TopicAlias=1)
    seen = sorted((m.payload, m.topic.removeprefix(w.prefix + "/")) for m in subscriber.exactly(7))
    names = ["one", "one", "two", "one", "two", "three", "three"]
    same(seen, [(b"%d" % (i + 1), name) for i, name in enumerate(names)], "topics")


@check("topic alias: whatever aliases the broker uses towards a client resolve", versions=V5)
def topic_alias_inbound(w):
    subscriber, publisher = w.peer("sub", connect={"TopicAliasMaximum": 5}), w.peer("pub")
    subscriber.subscribe(w.topic("#"), 1)
    sent = [(w.topic(f"t{i % 12}"), b"%d" % i) for i in range(60)]
    for topic, payload in sent:
        publisher.send(topic, payload, 1)
    aliases = {}
    seen = []
    for message in subscriber.exactly(60):
        alias = getattr(message.properties, "TopicAlias", None)
        require(alias is None or 1 <= alias <= 5, f"alias {alias}")
        topic = message.topic or aliases.get(alias)
        if alias:
            aliases[alias] = topic
        seen.append((topic, message.payload))
    same(seen, sent, "messages")


@check("subscription identifier: of every matching subscription", versions=V5)
def subscription_identifier(w):
    subscriber, publisher = w.peer("sub"), w.peer("pub")
    subscriber.subscribe(w.topic("a/#"), 1, properties=properties("SUBSCRIBE", SubscriptionIdentifier=7))
    subscriber.subscribe(w.topic("a/b"), 1, properties=properties("SUBSCRIBE", SubscriptionIdentifier=268_435_455))
    subscriber.subscribe(w.topic("c"), 1)
    publisher.publish(w.topic("a/x"), b"x", 1)
    publisher.publish(w.topic("c"), b"c", 1)
    publisher.publish(w.topic("a/b"), b"b", 1)
    subscriber.receive(3)
    subscriber.settle()

    def identifiers(payload):
        found = []
        for message in subscriber.messages:
            if message.payload == payload:
                found += getattr(message.properties, "SubscriptionIdentifier", [])
        return sorted(found)

    same(identifiers(b"x"), [7], "one match")
    same(identifiers(b"c"), [], "none given")
    same(identifiers(b"b"), [7, 268_435_455], "two matches")


@check("shared subscription: each message to one member, every member gets some", versions=V5)
def shared(w):
    members = [w.peer(f"member{i}") for i in range(3)]
    whole, publisher = w.peer("whole"), w.peer("pub")
    for member in members:
        same(member.subscribe(f"$share/{w.id}/{w.topic('+')}", 1), [1], "granted")
    whole.subscribe(w.topic("+"), 1)
    for i in range(90):
        publisher.send(w.topic("t"), b"%d" % i, 1)
    expected = [b"%d" % i for i in range(90)]
    same([m.payload for m in whole.exactly(90)], expected, "plain subscriber beside the group")
    wait(lambda: sum(len(member.messages) for member in members) >= 90, "90 messages")
    for member in members:
        member.settle()
    same(sorted(int(m.payload) for member in members for m in member.messages), range(90), "group")
    require(all(member.messages for member in members), f"shares {[len(member.messages) for member in members]}")
    # A member that leaves takes nothing with it.
    members[0].unsubscribe(f"$share/{w.id}/{w.topic('+')}")
    members[1].disconnect()
    members[2].settle()
    members[2].forget()
    for i in range(10):
        publisher.publish(w.topic("t"), b"%d" % i, 1)
    same([m.payload for m in members[2].exactly(10)], expected[:10], "last member")


@check("shared subscription: gets no retained messages", versions=V5)
def shared_retained(w):
    member, publisher = w.peer("member"), w.peer("pub")
    publisher.publish(w.topic("t"), b"x", 1, retain=True)
    member.subscribe(f"$share/{w.id}/{w.topic('t')}", 1)
    member.exactly(0)
    publisher.publish(w.topic("t"), b"", 1, retain=True)


@check("subscription options: no local, retain as published, retain handling", versions=V5)
def subscription_options(w):
    peer, other = w.peer("peer"), w.peer("other")
    other.publish(w.topic("r"), b"kept", 1, retain=True)

    def subscribe(name, **options):
        peer.forget()
        return peer.subscribe(w.topic(name), options=SubscribeOptions(qos=1, **options))

    subscribe("r", retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
    peer.exactly(1)
    subscribe("r", retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
    peer.exactly(0)
    subscribe("r", retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
    peer.exactly(0)
    subscribe("r", retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
    peer.exactly(1)
    subscribe("published", retainAsPublished=True)
    other.publish(w.topic("published"), b"flag", 1, retain=True)
    other.publish(w.topic("published"), b"none", 1)
    same([(m.payload, m.retain) for m in peer.exactly(2)], [(b"flag", True), (b"none", False)], "as published")
    other.publish(w.topic("published"), b"", 1, retain=True)
    peer.settle()
    subscribe("own", noLocal=True)
    peer.publish(w.topic("own"), b"mine", 1)
    other.publish(w.topic("own"), b"other's", 1)
    same([m.payload for m in peer.exactly(1)], [b"other's"], "no local")
    other.publish(w.topic("r"), b"", 1, retain=True)


@check("subscription options: subscribing again replaces them", versions=V5)
def replaces_options(w):
    peer, other = w.peer("peer"), w.peer("other")
    peer.subscribe(w.topic("t"), options=SubscribeOptions(qos=1))
    peer.subscribe(w.topic("t"), options=SubscribeOptions(qos=1, retainAsPublished=True, noLocal=True))
    peer.publish(w.topic("t"), b"mine", 1)
    other.publish(w.topic("t"), b"other's", 1, retain=True)
    same([(m.payload, m.retain) for m in peer.exactly(1)], [(b"other's", True)], "messages")
    other.publish(w.topic("t"), b"", 1, retain=True)


@check("reason codes: no matching subscribers, no subscription existed", versions=V5)
def reason_codes(w):
    peer = w.peer("a")
    for qos in (1, 2):
        code = peer.publish(w.topic("nobody"), b"x", qos)
        # paho 2 reports PUBCOMP for QoS 2, which does not carry it.
        require(code == (0x10 if qos == 1 else 0), f"qos {qos}: reason {code:#x}")
    peer.subscribe(w.topic("a"), 1)
    require(peer.publish(w.topic("a"), b"x", 1) == 0, "reason not zero with a subscriber")
    same(peer.unsubscribe([w.topic("a"), w.topic("never")]), [0, 0x11], "UNSUBACK")


@check("reason codes: a client that is taken over is told so, 0x8E", versions=V5)
def told_of_take_over(w):
    first = w.peer("same")
    w.peer("same")
    wait(lambda: first.gone, "end of the first connection")
    require(first.gone.by_packet, "closed without a DISCONNECT")
    require(first.gone.reason.value == 0x8E, f"reason {first.gone.reason}")


@check("will: sent on DISCONNECT with reason 0x04", versions=V5)
def disconnect_with_will(w):
    observer = w.peer("observer")
    observer.subscribe(w.topic("will"), 1)
    victim = w.peer("victim", will={"topic": w.topic("will"), "payload": b"asked", "qos": 1})
    victim.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
    same([m.payload for m in observer.exactly(1)], [b"asked"], "will")


@check("will delay: sent late, and not at all if the client is back in time", versions=V5)
def will_delay(w):
    observer = w.peer("observer")
    observer.subscribe(w.topic("will"), 1)
    for name in ("back", "lost"):
        delayed = properties("WILLMESSAGE", WillDelayInterval=2)
        will = {"topic": w.topic("will"), "payload": name.encode(), "qos": 1, "properties": delayed}
        w.peer(name, clean=False, will=will).cut()
    since = time.monotonic()
    w.peer("back", clean=False)
    observer.exactly(0)
    yield 2
    observer.receive(1)
    same([m.payload for m in observer.exactly(1)], [b"lost"], "wills")
    after_s = observer.messages[0].at - since
    require(after_s >= 1.9, f"sent after {after_s:.1f} s")


@check("receive maximum: never more in flight than the client allows", versions=V5)
def receive_maximum(w):
    subscriber = w.peer("sub", manual_ack=True, connect={"ReceiveMaximum": 5})
    publisher = w.peer("pub")
    subscriber.subscribe(w.topic("t"), 1)
    for i in range(23):
        publisher.publish(w.topic("t"), b"%d" % i, 1)
    for window in range(5, 24, 5):
        messages = subscriber.exactly(window)
        for message in messages[-5:]:
            subscriber.client.ack(message.mid, message.qos)
    same([int(m.payload) for m in subscriber.exactly(23)], range(23), "messages")


@check("maximum packet size: a larger message is left out, the next one comes", versions=V5)
def maximum_packet_size(w):
    subscriber = w.peer("sub", connect={"MaximumPacketSize": 1000})
    publisher = w.peer("pub")
    subscriber.subscribe(w.topic("t"), 1)
    for payload in (b"small", b"x" * 2000, b"after"):
        publisher.publish(w.topic("t"), payload, 1)
    same([m.payload for m in subscriber.exactly(2)], [b"small", b"after"], "messages")


# ---- Running them ---------------------------------------------------------------------------------------------------


class Run:
    """One check in one version, up to its report."""

    def __init__(self, number, check, version, transport):
        self.check = check
        self.world = World(version, number, transport)
        self.slow = inspect.isgeneratorfunction(check.function)
        self.generator = None
        self.failed = False

    def step(self):
        """Runs to the end, or of a slow check the next part. Returns how many seconds to leave it alone, or None."""
        try:
            if not self.slow:
                self.check.function(self.world, **self.check.arguments)
            else:
                self.generator = self.generator or self.check.function(self.world, **self.check.arguments)
                return next(self.generator)
        except StopIteration:
            pass
        except Exception as error:
            self.failed = True
            reason = error if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            print(f"FAIL paho/{self.world.label} {self.check.name}: {reason}", flush=True)
        if not self.failed:
            print(f"ok   paho/{self.world.label} {self.check.name}", flush=True)
        self.world.close()
        return None


def main():
    runs = [
        Run(number, check, version, transport)
        for transport in PORTS
        for version in ALL
        for number, check in enumerate(checks)
        if version in check.versions and transport in check.transports
    ]
    waiting = []
    for run in sorted(runs, key=lambda run: not run.slow):
        seconds = run.step()
        if seconds is not None:
            waiting.append((time.monotonic() + seconds, run))
    for due, run in sorted(waiting, key=lambda entry: entry[0]):
        while time.monotonic() < due:
            pump()
        run.step()
    return 1 if any(run.failed for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())

"""The clients of scripts/powercut: paho-mqtt objects that live through cuts with all they remember, and Mosquitto's
programs. One thread drives the paho clients. What they see goes into the ledger."""

import os
import re
import select
import subprocess
import tempfile

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

KEEP_ALIVE_S = 600
EXPIRY_S = 86_400
PACKET_ID_NOT_FOUND = 0x92
HOST = "127.0.0.1"
VERSIONS = {"311": mqtt.MQTTv311, "5": mqtt.MQTTv5}


def number_of(payload):
    return int(payload.split(b" ", 1)[0])


class Client:
    """A paho client: the same object before and after a cut, so that what it sends again is what the protocol says."""

    def __init__(self, ledger, name, version, durable=True):
        self.ledger, self.name, self.version, self.durable = ledger, name, version, durable
        self.is_connected = False
        self.in_flight = {}  # Packet id -> message.
        self.asked = {}  # Packet id -> (what to call, arguments).
        self.busy = set()  # Filters that a request is under way for.
        self.subscriber = None
        self.found = None
        clean = {} if version == "5" else {"clean_session": not durable}
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=VERSIONS[version], **clean)
        self.paho.on_connect = self.on_connect
        self.paho.on_publish = self.on_publish
        self.paho.on_subscribe = self.paho.on_unsubscribe = self.on_done
        self.paho.on_message = self.on_message

    def connect(self, port):
        self.is_connected = False
        self.asked.clear()
        self.busy.clear()
        more = {}
        if self.version == "5":
            more = {"clean_start": not self.durable, "properties": Properties(PacketTypes.CONNECT)}
            if self.durable:
                more["properties"].SessionExpiryInterval = EXPIRY_S
        for message in self.paho._out_messages.values():
            # What paho takes for a PUBLISH when it is cut off twice before CONNACK, and would send as one.
            if message.state == mqtt.mqtt_ms_resend_pubrel:
                message.state = mqtt.mqtt_ms_wait_for_pubcomp
        self.paho.connect(HOST, port, KEEP_ALIVE_S, **more)

    def on_connect(self, _client, _userdata, flags, reason, _properties):
        if reason.is_failure:
            self.ledger.problem("refused", f"{self.name} was refused: {reason}")
            return
        if self.durable:
            self.ledger.connected(self.name, flags.session_present)
        self.is_connected = True

    def publish(self, message, payload):
        sent = self.paho.publish(message.topic, payload, message.qos, message.retain)
        self.in_flight[sent.mid] = message
        self.ledger.note(self.name, "sends", message.number, "as packet", sent.mid)

    def on_publish(self, _client, _userdata, mid, reason, _properties):
        message = self.in_flight.pop(mid)
        # A PUBREL sent again finds nothing if the one before was stored: "not an error during recovery" [3.7.2.1].
        if reason.is_failure and reason.value != PACKET_ID_NOT_FOUND:
            self.ledger.problem("refused", f"{message}: {reason}")
        else:
            self.ledger.acknowledge(message)

    def subscribe(self, topic_filter, qos):
        owed = self.ledger.subscribe(self.subscriber, topic_filter, qos)
        _, mid = self.paho.subscribe(topic_filter, qos)
        self.busy.add(topic_filter)
        self.asked[mid] = self.ledger.subscribed, topic_filter, (owed,)

    def unsubscribe(self, topic_filter):
        self.ledger.unsubscribe(self.subscriber, topic_filter)
        _, mid = self.paho.unsubscribe(topic_filter)
        self.busy.add(topic_filter)
        self.asked[mid] = self.ledger.unsubscribed, topic_filter, ()

    def on_done(self, _client, _userdata, mid, reasons, _properties):
        if mid not in self.asked:
            return
        tell, topic_filter, more = self.asked.pop(mid)
        self.busy.discard(topic_filter)
        if any(reason.is_failure for reason in reasons):
            self.ledger.problem("refused", f"{topic_filter} of {self.name}: {reasons}")
            return
        tell(self.subscriber, topic_filter, *more)

    def on_message(self, _client, _userdata, message):
        if self.found is not None:
            if message.payload:
                self.found[message.topic] = number_of(message.payload)
        elif message.payload:
            details = f"QoS {message.qos}, packet {message.mid}" + ", again" * message.dup
            self.ledger.receive(self.subscriber, message.topic, number_of(message.payload), details)

    def look(self, topic_filter):
        """Subscribes with a clean session, to see what is retained: `found` by topic."""
        self.found = {}
        self.paho.subscribe(topic_filter, 0)


def pump(clients, seconds):
    """Lets the clients read and write what there is, waiting for something at most so long. The first whose connection
    ended, or None."""
    sockets = {client.paho.socket(): client for client in clients if client.paho.socket() is not None}
    writing = [socket for socket, client in sockets.items() if client.paho.want_write()]
    readable, writable, _ = select.select(list(sockets), writing, [], seconds)
    ended = None
    for socket in writable:
        sockets[socket].paho.loop_write()
    for socket in readable:
        client = sockets[socket]
        if client.paho.loop_read() != mqtt.MQTT_ERR_SUCCESS:
            client.is_connected = False
            ended = ended or client
    return ended


class MosquittoPub:
    """mosquitto_pub, for one message. What it saw counts, not how it ended."""

    DONE = re.compile(rb"received PUB(ACK|COMP) ")

    def __init__(self, ledger, port, message, payload, version):
        self.ledger, self.message = ledger, message
        retain = ["-r"] if message.retain else []
        where = ["-h", HOST, "-p", str(port), "-V", {"311": "mqttv311", "5": "mqttv5"}[version]]
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            ["mosquitto_pub", "-d", *where, "-q", str(message.qos), *retain, "-t", message.topic, "-m", payload],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.DEVNULL,
        )

    def settle(self):
        """Ends it, and notes the acknowledgement if it saw one."""
        try:
            self.process.wait(0.05)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.seek(0)
        if self.DONE.search(self.output.read()):
            self.ledger.acknowledge(self.message)
        self.output.close()


class MosquittoSub:
    """mosquitto_sub with a durable session. It comes back by itself a second after a cut, and remembers. Not with QoS 2:
    libmosquitto drops a message unseen whose PUBCOMP it cannot send any more, and acknowledges it when it is back."""

    def __init__(self, ledger, port, name, topic_filter, qos):
        self.ledger, self.subscriber, self.topic_filter = ledger, ledger.subscribers[name], topic_filter
        ledger.subscribe(self.subscriber, topic_filter, qos)
        where = ["-h", HOST, "-p", str(port), "-V", "mqttv311", "-k", str(KEEP_ALIVE_S)]
        self.output = tempfile.TemporaryFile()
        self.at, self.rest, self.is_subscribed = 0, b"", False
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", "-d", *where, "-c", "-i", name, "-q", str(qos), "-t", topic_filter]
            + ["-F", "+ %t %p"],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.DEVNULL,
        )

    def read(self):
        """Takes note of what it printed since the last call."""
        # Not by `seek`: it writes where the descriptor they share stands.
        new = os.pread(self.output.fileno(), 1 << 24, self.at)
        self.at += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        for line in lines:
            if line.startswith(b"+ "):
                _, topic, payload = line.split(b" ", 2)
                self.ledger.receive(self.subscriber, topic.decode(), number_of(payload))
            elif b"received SUBACK" in line or line.startswith(b"Subscribed (mid"):
                if not self.is_subscribed:
                    self.ledger.subscribed(self.subscriber, self.topic_filter, {})
                self.is_subscribed = True

    def end(self):
        self.process.kill()
        self.process.wait()
        self.output.close()

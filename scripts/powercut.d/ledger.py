"""What was promised, and whether it was kept: the model that scripts/powercut checks the broker against.

Knows no client and no broker. Each thing that happens gets the next number of one clock; what is known for certain
is what was acknowledged before the cut. What was not acknowledged may be there or not, and nothing is said about it.
"""

from collections import Counter, defaultdict, deque

TRACE_LINES = 20_000


def matches(topic_filter, topic):
    """Whether a filter matches a topic."""
    filters, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(filters):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(filters) == len(levels)


class Message:
    """One PUBLISH: its number, which its payload begins with, and when it was issued and acknowledged."""

    __slots__ = ("number", "topic", "qos", "publisher", "retain", "is_delete", "once", "issued", "acknowledged", "round")

    def __init__(self, number, topic, qos, publisher, retain, is_delete, once, issued, round_number):
        self.number, self.topic, self.qos, self.publisher = number, topic, qos, publisher
        self.retain, self.is_delete, self.once = retain, is_delete, once
        self.issued, self.acknowledged, self.round = issued, None, round_number

    def __str__(self):
        kind = "retained " if self.retain else ""
        return f"{kind}message {self.number} (QoS {self.qos} to {self.topic} by {self.publisher}, round {self.round})"


class Subscription:
    """A filter of a subscriber: since when it surely holds, and when it may have held."""

    def __init__(self, qos):
        self.qos = qos
        self.since = None  # The clock when it was acknowledged, as long as nobody asked to end it.
        self.maybe = []  # [from, to] of times when it may be there; `to` is None while it still may.

    def asked(self, now):
        if not self.maybe or self.maybe[-1][1] is not None:
            self.maybe.append([now, None])

    def may_have_held(self, start, end):
        return any(start <= (to or start) and (end is None or since <= end) for since, to in self.maybe)


class Subscriber:
    def __init__(self, name):
        self.name = name
        self.subscriptions = {}
        self.expected = {}  # Number -> message acknowledged and not yet seen.
        self.seen = set()
        self.latest = {}  # (publisher, topic, QoS) -> highest number seen.
        self.owed = {}  # Retained topic -> the least number that has to come.


class Ledger:
    """All promises since the store was empty."""

    def __init__(self, problem, totals):
        self.problem = problem  # Called with the kind and a text for each broken promise.
        self.totals = totals
        self.clock = 0
        self.round = 0
        self.subscribers = {}
        self.messages = {}
        self.kept = defaultdict(list)  # Retained topic -> messages that may be the value.
        self.kept_least = Counter()  # Retained topic -> number of the newest acknowledged value.
        self.sessions = set()
        self.trace = deque(maxlen=TRACE_LINES)

    def note(self, *words):
        """What happened, for whoever has to explain a broken promise."""
        self.trace.append((self.round, *words))

    def now(self):
        self.clock += 1
        return self.clock

    # ---- Publishers

    def issue(self, number, topic, qos, publisher, retain=False, is_delete=False, once=False):
        message = Message(number, topic, qos, publisher, retain, is_delete, once, self.now(), self.round)
        self.messages[number] = message
        self.note(publisher, "publishes", number, topic, qos, "retain" * retain, "deletes" * is_delete)
        if retain:
            self.kept[topic].append(message)
            if is_delete:
                for subscriber in self.subscribers.values():
                    subscriber.owed.pop(topic, None)
        return message

    def acknowledge(self, message):
        now = self.now()
        self.totals["acknowledged"] += 1
        self.note(message.publisher, "is acknowledged", message.number)
        if message.retain:
            self.kept_least[message.topic] = max(self.kept_least[message.topic], message.number)
            least = self.kept_least[message.topic]
            self.kept[message.topic] = [kept for kept in self.kept[message.topic] if kept.number >= least]
        if message.acknowledged is not None:
            return
        message.acknowledged = now
        if message.is_delete:
            return
        for subscriber in self.subscribers.values():
            for topic_filter, subscription in subscriber.subscriptions.items():
                holds = subscription.since is not None and subscription.since < message.issued
                if holds and matches(topic_filter, message.topic) and message.number not in subscriber.seen:
                    subscriber.expected[message.number] = message

    # ---- Subscribers

    def subscribe(self, subscriber, topic_filter, qos):
        self.note(subscriber.name, "subscribes to", topic_filter, qos)
        subscription = subscriber.subscriptions.setdefault(topic_filter, Subscription(qos))
        subscription.asked(self.now())
        owed = {}
        for topic, values in self.kept.items():
            if matches(topic_filter, topic) and self.kept_least[topic] and not any(v.is_delete for v in values):
                owed[topic] = self.kept_least[topic]
        return owed

    def subscribed(self, subscriber, topic_filter, owed):
        self.totals["subscriptions"] += 1
        self.note(subscriber.name, "is subscribed to", topic_filter)
        self.sessions.add(subscriber.name)
        subscriber.subscriptions[topic_filter].since = self.now()
        for topic, number in owed.items():
            came = max((kept.number for kept in self.kept[topic] if kept.number in subscriber.seen), default=0)
            if not any(kept.is_delete for kept in self.kept[topic]) and came < number:
                subscriber.owed[topic] = number

    def unsubscribe(self, subscriber, topic_filter):
        self.now()
        self.note(subscriber.name, "unsubscribes", topic_filter)
        subscriber.subscriptions[topic_filter].since = None
        subscriber.owed = {topic: n for topic, n in subscriber.owed.items() if not matches(topic_filter, topic)}

    def unsubscribed(self, subscriber, topic_filter):
        self.totals["unsubscriptions"] += 1
        self.note(subscriber.name, "is unsubscribed from", topic_filter)
        subscriber.subscriptions[topic_filter].maybe[-1][1] = self.now()

    def receive(self, subscriber, topic, number, details=""):
        """A subscriber was handed a message that is not a deletion."""
        self.note(subscriber.name, "receives", number, topic, details)
        message = self.messages.get(number)
        self.totals["delivered"] += 1
        if message is None or message.topic != topic:
            self.problem("strange", f"{subscriber.name} got message {number} on {topic}, which nobody sent")
            return
        holding = [s for f, s in subscriber.subscriptions.items() if matches(f, topic)]
        if not message.retain and not any(s.may_have_held(message.issued, message.acknowledged) for s in holding):
            self.problem("unsubscribed", f"{message} reached {subscriber.name}, which had no subscription to it")
        if subscriber.owed.get(topic, number + 1) <= number:
            del subscriber.owed[topic]
        subscriber.expected.pop(number, None)
        if number in subscriber.seen:
            if message.once and not message.retain and all(s.qos == 2 for s in holding):
                self.problem("doubled", f"{message} reached {subscriber.name} twice")
            return
        subscriber.seen.add(number)
        # A retained value also comes when a subscription is made, and what was sent before that is sent again later.
        if not message.retain and any(s.since is not None and s.since < message.issued for s in holding):
            key = message.publisher, topic, message.qos
            newest = subscriber.latest.get(key, 0)
            if newest > number:
                self.problem("out of order", f"{message} reached {subscriber.name} after message {newest}")
            subscriber.latest[key] = max(number, newest)

    # ---- Checks

    def connected(self, name, is_present):
        self.note(name, "is connected", "with its session" if is_present else "anew")
        if name in self.sessions and not is_present:
            self.problem("lost", f"the session of {name}")
        if is_present:
            self.sessions.add(name)

    def is_kept(self, topic, found):
        """Whether the retained value that a subscriber found, None for none, is one that may be there."""
        promised = self.kept_least[topic]
        if found is not None:
            return found >= promised
        return not promised or any(kept.is_delete and kept.number >= promised for kept in self.kept[topic])

    def missing_kept(self, found):
        """The topics whose retained values are not what was promised; `found` is what a subscriber got, by topic."""
        return [topic for topic in self.kept if not self.is_kept(topic, found.get(topic))]

    def check_kept(self, found):
        for topic in self.missing_kept(found):
            promised = self.messages[self.kept_least[topic]]
            self.problem("lost", f"{promised}; what is there: {found.get(topic, 'nothing')}")

    def is_missing(self, names):
        return any(self.subscribers[name].expected or self.subscribers[name].owed for name in names)

    def check_missing(self, names):
        for name in names:
            subscriber = self.subscribers[name]
            for message in subscriber.expected.values():
                self.problem("lost", f"{message} did not reach {name}")
            for topic, number in subscriber.owed.items():
                self.problem("lost", f"retained {self.messages[number]} did not reach {name} when it subscribed")
            subscriber.expected, subscriber.owed = {}, {}

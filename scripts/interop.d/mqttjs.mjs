#!/usr/bin/env node
// The mqtt.js client (npm package mqtt) against a broker: MQTT 3.1, 3.1.1 and 5.0, and a thousand clients at once.
//
// usage: mqttjs.mjs HOST PORT MODULES [WEBSOCKET_PORT]    (MODULES: the folder whose node_modules holds mqtt)
//
// Prints `ok   mqttjs/VERSION CHECK` or `FAIL mqttjs/VERSION CHECK: reason` for each check. The exit code is not zero
// if one failed. With WEBSOCKET_PORT the checks that need no real time are repeated over WebSocket, as VERSION+ws.
//
// Checks wait for events with a time limit. That something does *not* come is shown by `settle`, which sends markers
// round through the broker behind whatever could still be under way. Checks that need real time to pass are started
// first and run beside the others.

import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

const [host, port, modules, websocketPort] = process.argv.slice(2);
const mqtt = createRequire(resolve(modules) + '/')('mqtt');

const PROTOCOLS = {
  v31: { protocolId: 'MQIsdp', protocolVersion: 3 },
  v311: { protocolVersion: 4 },
  v5: { protocolVersion: 5 },
};
const TIMEOUT_MS = 15_000;
const MANY = 1_000;
const SETTLE = 'settle/';

const after = (ms) => new Promise((done) => setTimeout(done, ms));

function require(condition, text) {
  if (!condition) throw new Error(text);
}

// Two values must be equal; of two lists the first difference is shown, not every entry.
function same(seen, expected, what) {
  if (isDeepStrictEqual(seen, expected)) return;
  const show = (value) => String(JSON.stringify(value)).slice(0, 120);
  if (!Array.isArray(seen)) throw new Error(`${what}: saw ${show(seen)}, expected ${show(expected)}`);
  let at = 0;
  while (at < seen.length && isDeepStrictEqual(seen[at], expected[at])) at += 1;
  const [saw, wanted] = [seen, expected].map((list) => show(list.slice(at, at + 2)));
  throw new Error(`${what}: ${seen.length} of ${expected.length}, from ${at} on saw ${saw}, expected ${wanted}`);
}

// ---- Waiting --------------------------------------------------------------------------------------------------------

const waiters = new Set();

// Called after every event of every client.
function poke() {
  for (const waiter of waiters) if (waiter.condition()) waiter.finish();
}

function until(condition, what, timeoutMs = TIMEOUT_MS) {
  if (condition()) return Promise.resolve();
  return new Promise((done, failed) => {
    const waiter = { condition };
    const timer = setTimeout(() => {
      waiters.delete(waiter);
      failed(new Error(`no ${typeof what === 'function' ? what() : what} within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    waiter.finish = () => {
      clearTimeout(timer);
      waiters.delete(waiter);
      done();
    };
    waiters.add(waiter);
  });
}

async function within(promise, what) {
  let timer;
  const late = new Promise((_, failed) => {
    timer = setTimeout(() => failed(new Error(`no ${what} within ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// ---- One client and all that it saw ---------------------------------------------------------------------------------

class Peer {
  constructor(world, id, options) {
    this.messages = [];
    this.settled = 0;
    this.connack = null;
    this.acknowledged = [];
    this.gone = null;
    this.id = id;
    this.client = mqtt.connect({
      host,
      port: Number(world.overWebSocket ? websocketPort : port),
      ...(world.overWebSocket ? { protocol: 'ws', path: '/mqtt' } : {}),
      clientId: id,
      reconnectPeriod: 0,
      resubscribe: false,
      keepalive: 60,
      ...PROTOCOLS[world.version],
      ...options,
    });
    this.client.on('connect', (connack) => {
      this.connack = connack;
      poke();
    });
    this.client.on('message', (topic, payload, packet) => {
      if (topic.startsWith(SETTLE)) this.settled += 1;
      else this.messages.push({ topic, payload, ...pick(packet), at: Date.now() });
      poke();
    });
    // The promises of mqtt.js keep some reason codes to themselves.
    this.client.on('packetreceive', (packet) => {
      if (packet.cmd === 'puback') this.acknowledged.push(packet.reasonCode);
      if (packet.cmd === 'unsuback') this.acknowledged.push(...(packet.granted ?? []));
    });
    this.client.on('disconnect', (packet) => {
      this.gone = { reason: packet.reasonCode };
    });
    this.client.on('error', (error) => {
      this.gone ??= { error: String(error) };
      poke();
    });
    this.client.on('close', () => {
      this.gone ??= {};
      poke();
    });
  }

  async connected() {
    await until(() => this.connack || this.gone, `CONNACK for ${this.id}`);
    require(this.connack, `refused: ${JSON.stringify(this.gone)}`);
    return this;
  }

  async subscribe(topic, options) {
    const grants = await within(this.client.subscribeAsync(topic, options), `SUBACK for ${topic}`);
    return grants.map((grant) => grant.qos);
  }

  unsubscribe(topic) {
    return within(this.client.unsubscribeAsync(topic), 'UNSUBACK');
  }

  publish(topic, payload, options) {
    const acknowledged = within(this.client.publishAsync(topic, payload, options), `acknowledgement for ${topic}`);
    // A check may fail before it asks for this one.
    acknowledged.catch(() => {});
    return acknowledged;
  }

  async receive(count) {
    const what = () => `more than ${this.messages.length} of ${count} messages`;
    await until(() => this.messages.length >= count || this.gone, what);
    require(this.messages.length >= count, `connection ended after ${this.messages.length} of ${count} messages`);
    return this.messages;
  }

  // As `receive`, and none beyond.
  async exactly(count) {
    await this.receive(count);
    await this.settle();
    const extra = this.messages.slice(count, count + 3).map((m) => [m.topic, m.payload.toString('utf8', 0, 20)]);
    require(extra.length === 0, `${this.messages.length} messages instead of ${count}, among them ${extra}`);
    return this.messages;
  }

  // Three markers out and back: what was under way before has arrived.
  async settle() {
    const topic = SETTLE + this.id;
    await this.subscribe(topic, { qos: 0 });
    for (let round = 0; round < 3; round += 1) {
      const before = this.settled;
      await this.publish(topic, '');
      await until(() => this.settled > before || this.gone, 'marker');
      require(!this.gone, `connection ended: ${JSON.stringify(this.gone)}`);
    }
  }

  async disconnect(options) {
    await within(this.client.endAsync(false, options), 'end after DISCONNECT');
  }

  // The socket goes away without a DISCONNECT.
  cut() {
    this.client.stream.destroy();
  }
}

const pick = ({ qos, retain, dup, properties }) => ({ qos, retain, dup, properties: properties ?? {} });

// What one check needs: its version, a topic prefix of its own, and its clients.
class World {
  constructor(version, number, overWebSocket) {
    this.version = version;
    this.overWebSocket = overWebSocket;
    this.label = overWebSocket ? `${version}+ws` : version;
    this.prefix = `interop/mqttjs/${version}${overWebSocket ? 'ws' : ''}/${number}`;
    this.id = `mqttjs-${version}${overWebSocket ? 'ws' : ''}-${number}`;
    this.peers = [];
  }

  async peer(name, options = {}) {
    const peer = new Peer(this, `${this.id}-${name}`, options);
    this.peers.push(peer);
    return peer.connected();
  }

  // A session that outlives its connection.
  durable(name, options = {}) {
    const expiry = this.version === 'v5' ? { properties: { sessionExpiryInterval: 300, ...options.properties } } : {};
    return this.peer(name, { ...options, clean: false, ...expiry });
  }

  topic(name) {
    return `${this.prefix}/${name}`;
  }

  close() {
    for (const peer of this.peers) peer.client.end(true);
  }
}

const ALL = ['v31', 'v311', 'v5'];
const V5 = ['v5'];
const checks = [];
const check = (name, run, { versions = ALL, slow = false } = {}) => checks.push({ name, run, versions, slow });
const text = (messages) => messages.map((m) => m.payload.toString());
const count = (n) => Array.from({ length: n }, (_, i) => i);

// ---- The basics, in every version -----------------------------------------------------------------------------------

check('connect, and a clean session is not present', async (w) => {
  const peer = await w.peer('a');
  require(!peer.connack.sessionPresent, 'session present');
  await peer.disconnect();
});

for (const qos of [0, 1, 2]) {
  check(`qos${qos}: 200 messages, exact and in order`, async (w) => {
    const payloads = count(200).map((i) => Buffer.from(i === 0 ? '' : `${i}:` + 'x'.repeat((i * 97) % 600)));
    const [subscriber, publisher] = [await w.peer('sub'), await w.peer('pub')];
    same(await subscriber.subscribe(w.topic('t'), { qos }), [qos], 'granted');
    const sent = payloads.map((payload) => publisher.publish(w.topic('t'), payload, { qos }));
    const messages = await subscriber.exactly(200);
    same(messages.map((m) => m.payload), payloads, 'payloads');
    require(messages.every((m) => m.qos === qos && !m.retain && !m.dup && m.topic === w.topic('t')), 'header differs');
    await Promise.all(sent);
  });

  check(`1 MB payload at qos${qos}`, async (w) => {
    const payload = Buffer.alloc(1 << 20, (x) => x);
    for (let i = 0; i < payload.length; i += 1) payload[i] = (i * 31 + (i >> 8) + qos) & 0xff;
    const [subscriber, publisher] = [await w.peer('sub'), await w.peer('pub')];
    await subscriber.subscribe(w.topic('t'), { qos });
    await publisher.publish(w.topic('t'), payload, { qos });
    await publisher.publish(w.topic('t'), 'after', { qos });
    const messages = await subscriber.exactly(2);
    require(messages[0].payload.equals(payload), 'payload differs');
    same(messages[1].payload.toString(), 'after', 'message behind it');
  });
}

check('retained: live without the flag, later with it, cleared by an empty payload', async (w) => {
  const [subscriber, publisher] = [await w.peer('sub'), await w.peer('pub')];
  await subscriber.subscribe(w.topic('r'), { qos: 1 });
  await publisher.publish(w.topic('r'), 'old', { qos: 1, retain: true });
  await publisher.publish(w.topic('r'), 'new', { qos: 1, retain: true });
  const live = (await subscriber.exactly(2)).map((m) => [m.payload.toString(), m.retain]);
  same(live, [['old', false], ['new', false]], 'live');
  const late = await w.peer('late');
  await late.subscribe(w.topic('r'), { qos: 1 });
  same((await late.exactly(1)).map((m) => [m.payload.toString(), m.retain]), [['new', true]], 'late');
  await publisher.publish(w.topic('r'), '', { qos: 1, retain: true });
  same(text(await subscriber.exactly(3))[2], '', 'clearing');
  const last = await w.peer('last');
  await last.subscribe(w.topic('r'), { qos: 1 });
  await last.exactly(0);
});

check('retained: a device list of 1 MB beside 100 small ones, by a wildcard', async (w) => {
  const [publisher, late] = [await w.peer('pub'), await w.peer('late')];
  const large = 'x'.repeat(1 << 20);
  await publisher.publish(w.topic('bridge/devices'), large, { qos: 1, retain: true });
  await Promise.all(count(100).map((i) => publisher.publish(w.topic(`${i}/config`), `${i}`, { qos: 1, retain: true })));
  await late.subscribe([w.topic('#')], { qos: 1 });
  const seen = new Map((await late.exactly(101)).map((m) => [m.topic, m.payload.toString()]));
  require(seen.get(w.topic('bridge/devices')) === large, 'large one differs');
  for (const i of count(100)) same(seen.get(w.topic(`${i}/config`)), `${i}`, `${i}`);
  await Promise.all([...seen.keys()].map((topic) => publisher.publish(topic, '', { qos: 1, retain: true })));
});

check('will: sent when the socket is cut, retained if asked', async (w) => {
  const observer = await w.peer('observer');
  await observer.subscribe(w.topic('will'), { qos: 1 });
  const will = { topic: w.topic('will'), payload: Buffer.from('gone'), qos: 1, retain: true };
  const victim = await w.peer('victim', { will });
  await observer.exactly(0);
  victim.cut();
  const [message] = await observer.exactly(1);
  same([message.payload.toString(), message.qos, message.retain], ['gone', 1, false], 'will');
  const late = await w.peer('late');
  await late.subscribe(w.topic('will'), { qos: 1 });
  same((await late.exactly(1)).map((m) => m.retain), [true], 'retained will');
  await late.publish(w.topic('will'), '', { qos: 1, retain: true });
});

check('will: not sent after DISCONNECT', async (w) => {
  const observer = await w.peer('observer');
  await observer.subscribe(w.topic('will'), { qos: 1 });
  const victim = await w.peer('victim', { will: { topic: w.topic('will'), payload: Buffer.from('gone'), qos: 1 } });
  await victim.disconnect();
  await observer.exactly(0);
});

check('durable session: present again, queued qos1 and qos2 arrive in order, once', async (w) => {
  const first = await w.durable('sub');
  require(!first.connack.sessionPresent, 'present before it was made');
  await first.subscribe({ [w.topic('q1')]: { qos: 1 }, [w.topic('q2')]: { qos: 2 } });
  await first.disconnect();
  const publisher = await w.peer('pub');
  await Promise.all(count(100).map((i) => publisher.publish(w.topic(`q${1 + (i % 2)}`), `${i}`, { qos: 1 + (i % 2) })));
  const second = await w.durable('sub');
  if (w.version !== 'v31') require(second.connack.sessionPresent, 'session not present');
  const messages = await second.exactly(100);
  for (const qos of [1, 2]) {
    const expected = count(100).filter((i) => 1 + (i % 2) === qos).map(String);
    same(text(messages.filter((m) => m.qos === qos && m.topic === w.topic(`q${qos}`))), expected, `qos ${qos}`);
  }
  await second.disconnect();
  const third = await w.peer('sub');
  require(!third.connack.sessionPresent, 'present after a clean start');
  await publisher.publish(w.topic('q1'), 'to be dropped', { qos: 1 });
  await third.exactly(0);
});

check('wildcards: + and # match what they should and nothing else', async (w) => {
  const topics = ['a', 'a/b', 'a/b/c', '/a', 'a//c', 'b/a'];
  const expected = {
    '#': topics,
    'a/#': ['a', 'a/b', 'a/b/c', 'a//c'],
    'a/+': ['a/b'],
    'a/+/c': ['a/b/c', 'a//c'],
    '+/a': ['/a', 'b/a'],
    '+': ['a'],
  };
  const subscribers = new Map();
  for (const filter of Object.keys(expected)) {
    subscribers.set(filter, await w.peer(`sub${subscribers.size}`));
    await subscribers.get(filter).subscribe(w.topic(filter), { qos: 1 });
  }
  const publisher = await w.peer('pub');
  for (const topic of topics) await publisher.publish(w.topic(topic), topic, { qos: 1 });
  for (const [filter, subscriber] of subscribers) {
    same(text(await subscriber.exactly(expected[filter].length)), expected[filter], filter);
  }
});

check('overlapping subscriptions: at least one copy, at the highest qos, at most one each', async (w) => {
  const [subscriber, publisher] = [await w.peer('sub'), await w.peer('pub')];
  await subscriber.subscribe({ [w.topic('#')]: { qos: 1 }, [w.topic('+')]: { qos: 2 }, [w.topic('x')]: { qos: 0 } });
  for (const i of count(10)) await publisher.publish(w.topic('x'), `${i}`, { qos: 2 });
  await subscriber.receive(10);
  await subscriber.settle();
  for (const i of count(10)) {
    const copies = subscriber.messages.filter((m) => m.payload.toString() === `${i}`).map((m) => m.qos);
    require(copies.length >= 1 && copies.length <= 3 && Math.max(...copies) === 2, `message ${i} came as ${copies}`);
  }
});

check('unsubscribe ends one filter and leaves the other', async (w) => {
  const [subscriber, publisher] = [await w.peer('sub'), await w.peer('pub')];
  await subscriber.subscribe([w.topic('a'), w.topic('b')], { qos: 1 });
  await subscriber.unsubscribe(w.topic('a'));
  await publisher.publish(w.topic('a'), 'a', { qos: 1 });
  await publisher.publish(w.topic('b'), 'b', { qos: 1 });
  same(text(await subscriber.exactly(1)), ['b'], 'after unsubscribe');
});

check('take-over: the same client id ends the first connection and keeps the durable session', async (w) => {
  const first = await w.durable('same');
  await first.subscribe(w.topic('t'), { qos: 1 });
  const second = await w.durable('same');
  await until(() => first.gone, 'end of the first connection');
  if (w.version !== 'v31') require(second.connack.sessionPresent, 'session not present');
  await (await w.peer('pub')).publish(w.topic('t'), 'x', { qos: 1 });
  await second.exactly(1);
  require(first.messages.length === 0, 'the first connection got a message');
});

check('keep-alive: 2 s, and still connected after 5 s of silence', async (w) => {
  const peer = await w.peer('a', { keepalive: 2 });
  await peer.subscribe(w.topic('t'), { qos: 1 });
  await after(5_000);
  require(!peer.gone, `connection ended: ${JSON.stringify(peer.gone)}`);
  await peer.publish(w.topic('t'), 'x', { qos: 1 });
  await peer.exactly(1);
}, { slow: true });

check(`${MANY} clients: each gets the message on its own topic, and all get a common one`, async (w) => {
  const peers = [];
  while (peers.length < MANY) {
    const batch = count(100).map(async (i) => {
      const peer = await w.peer(`${peers.length + i}`);
      await peer.subscribe([w.topic(`own/${peers.length + i}`), w.topic('all')], { qos: 1 });
      return peer;
    });
    peers.push(...(await Promise.all(batch)));
  }
  const publisher = await w.peer('pub');
  await Promise.all(peers.map((_, i) => publisher.publish(w.topic(`own/${i}`), `for ${i}`, { qos: 1 })));
  await publisher.publish(w.topic('all'), 'for all', { qos: 1 });
  const complete = () => peers.filter((peer) => peer.messages.length >= 2).length;
  await until(() => complete() === MANY || peers.some((peer) => peer.gone), () => `message for more than ${complete()}`);
  require(!peers.some((peer) => peer.gone), 'a connection ended');
  await peers[0].settle();
  peers.forEach((peer, i) => same(text(peer.messages), [`for ${i}`, 'for all'], `client ${i}`));
}, { versions: ['v311', 'v5'] });

// ---- 5.0 ------------------------------------------------------------------------------------------------------------

check('properties: user properties, content type, response topic, correlation data are forwarded', async (w) => {
  const [subscriber, publisher] = [await w.peer('sub'), await w.peer('pub')];
  await subscriber.subscribe(w.topic('t'), { qos: 1 });
  const properties = {
    userProperties: { a: ['1', '2'], ü: '名' },
    contentType: 'text/plain',
    responseTopic: w.topic('answer'),
    correlationData: Buffer.from([0, 1, 255]),
    payloadFormatIndicator: true,
  };
  await publisher.publish(w.topic('t'), 'x', { qos: 1, properties });
  const [message] = await subscriber.exactly(1);
  for (const [name, value] of Object.entries(properties)) {
    const seen = message.properties[name];
    same(name === 'userProperties' ? { ...seen } : seen, value, name);
  }
}, { versions: V5 });

check('message expiry: an expired message is not delivered, another comes with the time left', async (w) => {
  const [subscriber, publisher] = [await w.durable('sub'), await w.peer('pub')];
  await subscriber.subscribe(w.topic('t'), { qos: 1 });
  await subscriber.disconnect();
  await publisher.publish(w.topic('t'), 'short', { qos: 1, properties: { messageExpiryInterval: 1 } });
  await publisher.publish(w.topic('t'), 'long', { qos: 1, properties: { messageExpiryInterval: 100 } });
  await after(3_000);
  const messages = await (await w.durable('sub')).exactly(1);
  same(text(messages), ['long'], 'delivered');
  const left = messages[0].properties.messageExpiryInterval;
  require(left >= 50 && left <= 98, `expiry interval ${left}`);
}, { versions: V5, slow: true });

check('session expiry: kept within the interval, gone after it', async (w) => {
  const sessions = { short: 1, long: 100 };
  for (const [name, sessionExpiryInterval] of Object.entries(sessions)) {
    const peer = await w.durable(name, { properties: { sessionExpiryInterval } });
    await peer.subscribe(w.topic('t'), { qos: 1 });
    await peer.disconnect();
  }
  await after(3_000);
  same((await w.durable('short')).connack.sessionPresent, false, 'short');
  same((await w.durable('long')).connack.sessionPresent, true, 'long');
}, { versions: V5, slow: true });

check('topic alias: assigned and used by the client, and resolved from the broker', async (w) => {
  const subscriber = await w.peer('sub', { properties: { topicAliasMaximum: 5 } });
  const publisher = await w.peer('pub', { autoUseTopicAlias: true, autoAssignTopicAlias: true });
  require(publisher.connack.properties?.topicAliasMaximum >= 2, 'no Topic Alias Maximum in CONNACK');
  await subscriber.subscribe(w.topic('#'), { qos: 1 });
  const sent = count(90).map((i) => [w.topic(`t${i % 30}`), `${i}`]);
  for (const [topic, payload] of sent) await publisher.publish(topic, payload, { qos: 1 });
  same((await subscriber.exactly(90)).map((m) => [m.topic, m.payload.toString()]), sent, 'messages');
}, { versions: V5 });

check('subscription identifier comes with the message', async (w) => {
  const [subscriber, publisher] = [await w.peer('sub'), await w.peer('pub')];
  await subscriber.subscribe(w.topic('a'), { qos: 1, properties: { subscriptionIdentifier: 300 } });
  await subscriber.subscribe(w.topic('b'), { qos: 1 });
  await publisher.publish(w.topic('a'), 'a', { qos: 1 });
  await publisher.publish(w.topic('b'), 'b', { qos: 1 });
  const messages = await subscriber.exactly(2);
  same(messages.map((m) => [m.properties.subscriptionIdentifier].flat()), [[300], [undefined]], 'identifiers');
}, { versions: V5 });

check('shared subscription: each message to one member, every member gets some', async (w) => {
  const members = [await w.peer('one'), await w.peer('two'), await w.peer('three')];
  for (const member of members) await member.subscribe(`$share/${w.id}/${w.topic('t')}`, { qos: 1 });
  const publisher = await w.peer('pub');
  await Promise.all(count(90).map((i) => publisher.publish(w.topic('t'), `${i}`, { qos: 1 })));
  await until(() => members.reduce((sum, member) => sum + member.messages.length, 0) >= 90, '90 messages');
  for (const member of members) await member.settle();
  const all = members.flatMap((member) => text(member.messages).map(Number));
  same(all.sort((a, b) => a - b), count(90), 'group');
  require(members.every((member) => member.messages.length > 0), 'a member got nothing');
}, { versions: V5 });

check('subscription options: no local, retain as published, retain handling', async (w) => {
  const [peer, other] = [await w.peer('peer'), await w.peer('other')];
  await peer.subscribe(w.topic('own'), { qos: 1, nl: true });
  await peer.publish(w.topic('own'), 'mine', { qos: 1 });
  await other.publish(w.topic('own'), "other's", { qos: 1 });
  same(text(await peer.exactly(1)), ["other's"], 'no local');
  await other.publish(w.topic('kept'), 'kept', { qos: 1, retain: true });
  await peer.subscribe(w.topic('kept'), { qos: 1, rap: true, rh: 2 });
  await peer.exactly(1);
  await other.publish(w.topic('kept'), 'flag', { qos: 1, retain: true });
  same((await peer.exactly(2))[1].retain, true, 'retain as published');
  await other.publish(w.topic('kept'), '', { qos: 1, retain: true });
}, { versions: V5 });

check('reason codes: no matching subscribers, no subscription existed', async (w) => {
  const peer = await w.peer('a');
  await peer.publish(w.topic('nobody'), 'x', { qos: 1 });
  await peer.subscribe(w.topic('a'), { qos: 1 });
  await peer.unsubscribe([w.topic('a'), w.topic('never')]);
  same(peer.acknowledged, [0x10, 0, 0x11], 'PUBACK and UNSUBACK');
}, { versions: V5 });

check('reason codes: a client that is taken over is told so, 0x8E', async (w) => {
  const first = await w.peer('same');
  await w.peer('same');
  await until(() => first.gone, 'end of the first connection');
  same(first.gone.reason, 0x8e, 'DISCONNECT');
}, { versions: V5 });

check('will: sent on DISCONNECT with reason 0x04', async (w) => {
  const observer = await w.peer('observer');
  await observer.subscribe(w.topic('will'), { qos: 1 });
  const victim = await w.peer('victim', { will: { topic: w.topic('will'), payload: Buffer.from('asked'), qos: 1 } });
  await victim.disconnect({ reasonCode: 4 });
  same(text(await observer.exactly(1)), ['asked'], 'will');
}, { versions: V5 });

// ---- Running them ---------------------------------------------------------------------------------------------------

let failed = 0;

async function run({ name, run: body }, version, number, overWebSocket = false) {
  const world = new World(version, number, overWebSocket);
  try {
    await body(world);
    console.log(`ok   mqttjs/${world.label} ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL mqttjs/${world.label} ${name}: ${error.message}`);
  }
  world.close();
}

const runs = ALL.flatMap((version) =>
  checks.map((check, number) => ({ check, number, version })).filter(({ check }) => check.versions.includes(version)),
);
const slow = runs.filter(({ check }) => check.slow).map((r) => run(r.check, r.version, r.number));
const quick = runs.filter(({ check }) => !check.slow);
for (const r of quick) await run(r.check, r.version, r.number);
if (websocketPort) for (const r of quick) await run(r.check, r.version, r.number, true);
await Promise.all(slow);
process.exit(failed ? 1 : 0);

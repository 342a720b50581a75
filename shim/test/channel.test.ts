/** The channel to the agent: handed over as often as it takes, until an agent says `done`. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Agent } from './agent.ts';
import { Fixture } from './process.ts';
import { HANG_MS, memoryFolder, PAGE_BYTES, temporaryFolder, until } from './support.ts';

const options = { timeout: 3 * HANG_MS };
const PAGES = 16;

async function start(t: TestContext, agent: Agent): Promise<{ readonly fixture: Fixture; readonly ram: string }> {
  const ram = join(memoryFolder(t), 'ram');
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
  await fixture.map(ram, PAGES);
  return { fixture, ram };
}

test('sent away with `again` because another VMM is there, it comes again and does not end', options, async (t) => {
  const agent = new Agent(t);
  const { fixture } = await start(t, agent);
  const message = 'another VMM is on this socket already';
  (await agent.next()).say({ type: 'failed', reason: 'BAD_HANDSHAKE', message, again: true });
  await fixture.says(/does not take the memory yet: another VMM is on this socket already; trying again\n$/);
  const channel = await agent.next();
  assert.equal(channel.handshake.content, 'discard');
  assert.ok(fixture.running);
});

test('after `done` nothing is left of it: no descriptor, no thread, and no call is looked at', options, async (t) => {
  const agent = new Agent(t);
  const { fixture, ram } = await start(t, agent);
  assert.equal(fixture.userfaultfds, 1);
  const channel = await agent.next();
  channel.say({ type: 'held' });
  channel.say({ type: 'ready' });
  channel.fill(0, 0, 3, PAGES);
  channel.unregister();
  channel.say({ type: 'done' });
  await until('the thread to end', () => !fixture.threads().includes('pagewake-shim'));
  assert.equal(fixture.userfaultfds, 0);
  assert.equal(fixture.descriptors().filter((target) => target === ram).length, 1); // the fixture's own
  await fixture.map(ram, PAGES);
  assert.equal(await fixture.ask('touch 1 2 0', /^touch/), 'touch 1 2 3');
  assert.equal(await fixture.ask('populate-write 0 0 4', /^populate/), 'populate-write ok');
  assert.equal(await fixture.ask('munmap 0 16', /^munmap/), 'munmap ok');
  assert.equal(agent.connections, 1);
  assert.equal(fixture.stderr, '');
});

const CONTENT: readonly [what: string, said: readonly string[], content: string][] = [
  ['nothing', [], 'discard'],
  ['held', ['held'], 'discard'],
  ['ready', ['held', 'ready'], 'live'],
  ['ready at once', ['ready'], 'live'],
];

for (const [what, said, content] of CONTENT)
  test(
    `an agent that is lost after ${what} is followed by another, with the same memory as ${content}`,
    options,
    async (t) => {
      const agent = new Agent(t);
      const { fixture } = await start(t, agent);
      const first = await agent.next();
      for (const type of said) first.say({ type });
      const { regions, content: before } = first.handshake;
      assert.equal(before, 'discard');
      first.close();
      const second = await agent.next();
      assert.deepEqual(second.handshake.regions, regions);
      assert.equal(second.handshake.content, content);
      second.watch();
      fixture.say('touch 0 9 0');
      await second.faultAt(0, 9);
      second.fill(0, 9, 119);
      assert.equal(await fixture.line(/^touch/), 'touch 0 9 119');
      assert.equal(fixture.userfaultfds, 1);
    },
  );

test('a fault that a lost agent has read and not answered is asked of the next one', options, async (t) => {
  const agent = new Agent(t);
  const { fixture } = await start(t, agent);
  const first = (await agent.next()).watch();
  fixture.say('touch 0 4 0');
  await first.faultAt(0, 4);
  first.close();
  const second = (await agent.next()).watch();
  await second.faultAt(0, 4);
  assert.equal(fixture.heard(/^touch/), false);
  second.fill(0, 4, 33);
  assert.equal(await fixture.line(/^touch/), 'touch 0 4 33');
});

test('`failed` with `again` hands the memory to the next migration', options, async (t) => {
  const agent = new Agent(t);
  const { fixture } = await start(t, agent);
  const first = await agent.next();
  first.say({ type: 'held' });
  first.say({ type: 'failed', reason: 'CANCELLED', message: 'by "somebody" \u00e9\n', again: true });
  await fixture.says(/before anything came over \(CANCELLED: by "somebody" [^\n]+\); the memory will be handed/);
  assert.equal((await agent.next()).handshake.content, 'discard');
});

test('`failed` before any guest ran ends the process with the reason', options, async (t) => {
  const agent = new Agent(t);
  const { fixture } = await start(t, agent);
  (await agent.next()).say({ type: 'failed', reason: 'BAD_HANDSHAKE', message: 'the names do not match' });
  const { code, stderr } = await fixture.ended();
  assert.equal(code, 1);
  assert.equal(
    stderr,
    "pagewake-shim: the destination agent refuses this VM's memory: BAD_HANDSHAKE: the names do not match\n",
  );
});

test('`failed` after `ready` is said, ends nothing, and what is missing never becomes zeros', options, async (t) => {
  const agent = new Agent(t);
  const { fixture } = await start(t, agent);
  const channel = (await agent.next()).watch();
  channel.say({ type: 'ready' });
  channel.fill(0, 1, 49);
  channel.say({ type: 'failed', reason: 'SOURCE_LOST', message: 'no answer', again: true });
  await fixture.says(/cannot be finished: SOURCE_LOST: no answer; memory that has not come over is lost/);
  await until('the thread to end', () => !fixture.threads().includes('pagewake-shim'));
  assert.equal(await fixture.ask('touch 0 1 0', /^touch/), 'touch 0 1 49');
  fixture.say('touch 0 2 0');
  await channel.faultAt(0, 2);
  channel.close();
  assert.equal(fixture.heard(/^touch/), false);
  assert.equal(fixture.userfaultfds, 1);
  assert.equal(agent.connections, 1);
});

test('an agent that does not take a live memory is asked again', options, async (t) => {
  const agent = new Agent(t);
  const { fixture } = await start(t, agent);
  const first = await agent.next();
  first.say({ type: 'ready' });
  first.close();
  (await agent.next()).say({ type: 'failed', reason: 'BAD_HANDSHAKE', message: 'another VMM is here' });
  assert.equal((await agent.next()).handshake.content, 'live');
  assert.match(fixture.stderr, /does not take the memory: another VMM is here; trying again/);
});

test('what an agent says may come in pieces, and what is not known is passed over', options, async (t) => {
  const agent = new Agent(t);
  const { fixture } = await start(t, agent);
  const channel = await agent.next();
  const text = [
    '{"type":"resolved","id":7,"offset":4096,"len":4096}',
    '{"new":[1,{"a":"}]\\""},null,-1.5e3,false],"type":"weather"}',
    '{ "type" : "ready" , "since" : { "x" : [ ] } }\r',
    '{"type":"held","again":"true"}',
  ].join('\n');
  for (const piece of `${text}\n`.match(/[^]{1,7}/g) ?? []) {
    channel.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  channel.close();
  assert.equal((await agent.next()).handshake.content, 'live');
  assert.equal(fixture.stderr, '');
});

const GARBAGE: readonly [what: string, text: string, says: RegExp][] = [
  ['words', 'HTTP/1.1 400 Bad Request\r\n', /no destination agent: it says "HTTP\/1\.1 400/],
  ['an array', '[{"type":"ready"}]\n', /no destination agent/],
  ['an object without a type', '{"kind":"ready"}\n', /no destination agent/],
  ['an object that ends early', '{"type":"ready"\n', /no destination agent/],
  ['an object and more', '{"type":"ready"} {}\n', /no destination agent/],
  ['a type that is no string', '{"type":true}\n', /no destination agent/],
  ['an empty object', '{}\n', /no destination agent/],
  ['a bad escape', '{"type":"\\u00g0"}\n', /no destination agent/],
  ['a deep one', `{"type":"x","y":${'['.repeat(60_000)}\n`, /no destination agent/],
  ['nothing but bytes', 'x'.repeat(70_000), /65536 bytes without a line's end/],
];

for (const [what, text, says] of GARBAGE)
  test(`a peer that says ${what} is left, and means nothing`, options, async (t) => {
    const agent = new Agent(t);
    const { fixture } = await start(t, agent);
    (await agent.next()).write(text);
    assert.equal((await agent.next()).handshake.content, 'discard');
    assert.match(fixture.stderr, says);
    assert.match(fixture.stderr, /^pagewake-shim: [^\n]+\n$/);
  });

test('a peer that takes connections and closes them is asked again and again', options, async (t) => {
  const path = join(temporaryFolder(t), 'agent.sock');
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    sockets.push(socket.destroy());
  });
  server.listen(path);
  t.after(() => server.close());
  const ram = join(memoryFolder(t), 'ram');
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: path, PAGEWAKE_RAM: ram });
  await fixture.map(ram, PAGES);
  await until('three connections', () => sockets.length >= 3);
  server.close();
  rmSync(path, { force: true });
  const channel = (await new Agent(t, path).next()).watch();
  fixture.say('touch 0 15 0');
  await channel.faultAt(0, 15);
  channel.fill(0, 15, 21);
  assert.equal(await fixture.line(/^touch/), 'touch 0 15 21');
});

test('a wait that is long is said once, with what is waited for, and so is its end', options, async (t) => {
  const folder = memoryFolder(t);
  const path = join(folder, 'agent.sock');
  const [node0, node1] = [join(folder, 'node0'), join(folder, 'node1')];
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: path, PAGEWAKE_RAM: `${node0}:${node1}` });
  await fixture.map(node0, PAGES);
  await fixture.says(/QEMU has mapped 1 of 2 RAM files/);
  await fixture.map(node1, PAGES);
  await fixture.says(/waiting for the destination agent at \S+agent\.sock \(No such file or directory\)\n/);
  const channel = await new Agent(t, path).next();
  channel.say({ type: 'held' });
  await fixture.says(/a destination agent has taken the memory/);
  assert.equal(channel.handshake.regions[1]?.offset, PAGES * PAGE_BYTES);
  assert.equal(fixture.stderr.trimEnd().split('\n').length, 3);
});

/** What a guest gives back is heard once by an agent; the next agent is told of the last of it, as the one before may have died with it. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Agent, type Channel } from './agent.ts';
import { Fixture } from './process.ts';
import { HANG_MS, memoryFolder, PAGE_BYTES, SANITIZED, until } from './support.ts';

const options = { timeout: 3 * HANG_MS };
const PAGES = 64;
/** Of calls that are under way at the same time, as the library has it. */
const AT_ONCE = 64;

interface Running {
  readonly agent: Agent;
  readonly fixture: Fixture;
  /** Its guest runs. */
  readonly channel: Channel;
}

/** Two files, the second one mapped first and from its third page on. */
async function start(t: TestContext): Promise<Running> {
  const folder = memoryFolder(t);
  const [low, high] = [join(folder, 'low'), join(folder, 'high')];
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: `${low}:${high}` });
  await fixture.map(high, PAGES, { firstPage: 2 });
  await fixture.map(low, PAGES);
  const first = await agent.next();
  assert.equal(first.handshake.given_back, undefined);
  first.say({ type: 'ready' });
  first.close();
  const channel = await agent.next();
  assert.equal(channel.handshake.content, 'live');
  return { agent, fixture, channel };
}

/** Page and count in the memory image, in order. */
const givenBackOf = ({ handshake }: Channel): readonly (readonly number[])[] =>
  (handshake.given_back ?? [])
    .map(({ offset, len }) => [offset / PAGE_BYTES, len / PAGE_BYTES])
    .toSorted(([a = 0], [b = 0]) => a - b);

/** The first agent from now on that is told of so many: a call may not have begun when one asks. */
async function nextToldOf(agent: Agent, count: number): Promise<Channel> {
  for (;;) {
    const next = await agent.next();
    if (givenBackOf(next).length >= count) return next;
    next.close();
  }
}

test('the next agent is told of what the one before has read, and of what waits for one', options, async (t) => {
  const { agent, fixture, channel } = await start(t);
  assert.deepEqual(givenBackOf(channel), []);
  channel.watch();
  assert.equal(await fixture.ask('remove 1 5 2', /^remove/), 'remove ok');
  assert.equal(await fixture.ask('punch 0 11 3', /^punch/), 'punch ok');
  channel.close();
  fixture.say('dontneed 0 20 1');
  const all = [
    [5, 2],
    [PAGES + 9, 3],
    [PAGES + 20, 1],
  ];
  const second = await nextToldOf(agent, all.length);
  assert.deepEqual(givenBackOf(second), all);
  assert.equal(fixture.heard(/^dontneed/), false);
  second.watch();
  await fixture.line(/^dontneed ok/);
  assert.deepEqual(second.removed, [{ start: second.at(1, 20), end: second.at(1, 21) }]);
  second.close();
  assert.deepEqual(givenBackOf(await agent.next()), all);
});

test('threads that give back at once are each told of, and more than there is room for wait', options, async (t) => {
  const { agent, fixture, channel } = await start(t);
  channel.close();
  const calls = Array.from({ length: AT_ONCE + 6 }, (_, i) => [Math.floor(i / PAGES), i % PAGES] as const);
  for (const [mapping, page] of calls) fixture.say(`remove ${1 - mapping} ${page} 1`);
  const next = await nextToldOf(agent, AT_ONCE);
  const told = givenBackOf(next);
  assert.equal(told.length, AT_ONCE);
  assert.equal(new Set(told.map(([page]) => page)).size, AT_ONCE);
  next.watch();
  for (const _ of calls) assert.equal(await fixture.line(/^remove/), 'remove ok');
  await until('every removal', () => next.removed.length === calls.length);
});

test('however it is asked, it says ranges that were given back, the last ones among them', options, async (t) => {
  const { agent, fixture, channel } = await start(t);
  const countAt = (page: number): number => 1 + (page % 5);
  let current = channel.watch();
  const lastPage = 40;
  for (let death = 0; death < 4; death++) {
    for (let i = 0; i < 100; i++) fixture.say(`remove 1 ${i % lastPage} ${countAt(i % lastPage)}`);
    current.close();
    current = await agent.next();
    for (const [page = 0, count] of givenBackOf(current)) assert.equal(count, countAt(page));
    current.watch();
    for (let i = 0; i < 100; i++) assert.equal(await fixture.line(/^remove/), 'remove ok');
  }
  for (const page of [50, 55]) await fixture.ask(`remove 1 ${page} 2`, /^remove ok/);
  current.close();
  const told = givenBackOf(await agent.next());
  for (const page of [50, 55])
    assert.ok(
      told.some(([first, count]) => first === page && count === 2),
      `page ${page}`,
    );
});

test('what the kernel has refused to give back is not told of', options, async (t) => {
  if (SANITIZED) return t.skip('mlockall does nothing under AddressSanitizer');
  const { agent, fixture, channel } = await start(t);
  channel.watch();
  await fixture.ask('remove 1 30 1', /^remove ok/);
  // MCL_CURRENT | MCL_ONFAULT: locked memory stays.
  assert.equal(await fixture.ask('mlockall 5', /^mlockall/), 'mlockall ok');
  for (let i = 0; i < 20; i++) assert.equal(await fixture.ask('remove 1 5 2', /^remove/), 'remove EINVAL');
  channel.close();
  assert.deepEqual(givenBackOf(await agent.next()), [[30, 1]]);
});

/** Which memory the library watches, what it hands over, and what it refuses. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MemoryFile, UFFD_FEATURE } from '@pagewake/native';
import { Agent } from './agent.ts';
import { Fixture } from './process.ts';
import { featuresOf, HANG_MS, memoryFolder, PAGE_BYTES, until } from './support.ts';

const options = { timeout: 3 * HANG_MS };
const HUGE_PAGE_PAGES = 512;

test(
  'a page that is touched before any agent is there waits, and is what the agent then brings',
  options,
  async (t) => {
    const ram = join(memoryFolder(t), 'ram');
    const socket = join(memoryFolder(t), 'late.sock');
    const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: socket, PAGEWAKE_RAM: ram });
    await fixture.map(ram, 16);
    fixture.say('touch 0 5 0');
    const channel = (await new Agent(t, socket).next()).watch();
    await channel.faultAt(0, 5);
    assert.equal(fixture.heard(/^touch/), false);
    channel.fill(0, 5, 90);
    assert.equal(await fixture.line(/^touch/), 'touch 0 5 90');
    // And never before: the file has this page only.
    const file = MemoryFile.open(ram, { write: false });
    t.after(() => file.close());
    assert.deepEqual([...file.dataRuns(0, 16 * PAGE_BYTES)], [5 * PAGE_BYTES, PAGE_BYTES]);
  },
);

test(
  'the handshake names the region, its file, and a userfaultfd that tells of removals and threads',
  options,
  async (t) => {
    const ram = join(memoryFolder(t), 'ram"1"\\');
    const agent = new Agent(t);
    const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
    const address = await fixture.map(ram, 16, { firstPage: 4 });
    const channel = await agent.next();
    assert.deepEqual(channel.handshake, {
      protocol: 'pagewake/1',
      regions: [
        {
          name: ram,
          base_host_virt_addr: address,
          size: 16 * PAGE_BYTES,
          offset: 0,
          page_size: PAGE_BYTES,
          file_offset: 4 * PAGE_BYTES,
          fd: 1,
        },
      ],
      fds: ['uffd', 'memfd'],
      registered: ['missing'],
      content: 'discard',
    });
    const { dev, ino } = statSync(ram);
    assert.deepEqual(channel.fileOf(0), { device: dev, inode: ino });
    const features = featuresOf(channel.uffd.fd);
    for (const feature of ['eventRemove', 'threadId', 'missingShmem'] as const)
      assert.notEqual(features & UFFD_FEATURE[feature], 0, feature);
    for (const feature of ['eventFork', 'eventUnmap', 'eventRemap', 'sigbus'] as const)
      assert.equal(features & UFFD_FEATURE[feature], 0, feature);
    assert.ok(fixture.threads().includes('pagewake-shim'));
  },
);

test(
  'several files are handed over together, in the order of PAGEWAKE_RAM, each with its descriptor',
  options,
  async (t) => {
    const folder = memoryFolder(t);
    const names = ['node0', 'node1', 'node2'].map((name) => join(folder, name));
    const agent = new Agent(t);
    const fixture = await Fixture.start(t, {
      PAGEWAKE_SOCKET: agent.path,
      PAGEWAKE_RAM: names.join(':'),
      PAGEWAKE_VM: 'web1',
    });
    const [node0, node1, node2] = names as [string, string, string];
    await fixture.map(node2, 2);
    await fixture.map(node0, 8);
    assert.equal(agent.connections, 0);
    await fixture.map(node1, 4);
    const channel = await agent.next();
    const { regions, fds, vm } = channel.handshake;
    assert.equal(vm, 'web1');
    assert.deepEqual(fds, ['uffd', 'memfd', 'memfd', 'memfd']);
    assert.deepEqual(
      regions.map((r) => [r.name, r.offset / PAGE_BYTES, r.size / PAGE_BYTES, r.fd]),
      [
        [node0, 0, 8, 1],
        [node1, 8, 4, 2],
        [node2, 12, 2, 3],
      ],
    );
    for (const [index, name] of names.entries()) assert.equal(channel.fileOf(index).inode, statSync(name).ino);
    channel.watch();
    fixture.say('touch 0 1 0');
    await channel.faultAt(2, 1);
    channel.fill(2, 1, 7);
    assert.equal(await fixture.line(/^touch/), 'touch 0 1 7');
  },
);

test('a folder stands for every file below it, and each is named by its real path', options, async (t) => {
  const folder = memoryFolder(t);
  mkdirSync(join(folder, 'real/1-web1'), { recursive: true });
  symlinkSync(join(folder, 'real'), join(folder, 'ram'));
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, {
    PAGEWAKE_SOCKET: agent.path,
    PAGEWAKE_RAM: join(folder, 'ram'),
    PAGEWAKE_RAM_COUNT: '2',
  });
  await fixture.map(join(folder, 'ram/1-web1/ram-node0'), 4);
  await fixture.map(join(folder, 'ram/1-web1/ram-node1'), 4, { how: 'unlinked' });
  const channel = await agent.next();
  assert.deepEqual(
    channel.handshake.regions.map((r) => r.name),
    [join(folder, 'real/1-web1/ram-node0'), join(folder, 'real/1-web1/ram-node1')],
  );
});

test('a memfd of another process is found by its place in /proc', options, async (t) => {
  const memory = MemoryFile.createMemfd('guest', 8 * PAGE_BYTES);
  t.after(() => memory.close());
  const ram = `/proc/${process.pid}/fd/${memory.fd}`;
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
  await fixture.map(ram, 8);
  const channel = await agent.next();
  assert.equal(channel.handshake.regions[0]?.name, ram);
  assert.equal(channel.fileOf(0).inode, statSync(ram).ino);
});

test('a file that was removed after it was opened is watched all the same', options, async (t) => {
  const ram = join(memoryFolder(t), 'ram');
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
  await fixture.map(ram, 4, { how: 'unlinked' });
  assert.equal((await agent.next()).handshake.regions[0]?.name, ram);
});

test('memory of 2 MiB pages says so', options, async (t) => {
  const memory = MemoryFile.createMemfd('guest', HUGE_PAGE_PAGES * PAGE_BYTES, { hugePages2MiB: true });
  t.after(() => memory.close());
  const ram = `/proc/${process.pid}/fd/${memory.fd}`;
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
  const line = await fixture.ask(`map shared ${ram} ${HUGE_PAGE_PAGES}`, /^map/);
  if (line === 'map ENOMEM') return t.skip('no free 2 MiB page (vm.nr_hugepages)');
  assert.equal((await agent.next()).handshake.regions[0]?.page_size, HUGE_PAGE_PAGES * PAGE_BYTES);
});

test('other files are none of its business', options, async (t) => {
  const folder = memoryFolder(t);
  writeFileSync(join(folder, 'nvdimm'), Buffer.alloc(4 * PAGE_BYTES, 9));
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: join(folder, 'ram') });
  for (const how of ['shared', 'private', 'readonly', 'populate'])
    await fixture.map(join(folder, 'nvdimm'), 4, { how });
  assert.equal(await fixture.ask('touch 0 2 0', /^touch/), 'touch 0 2 9');
  assert.equal(fixture.userfaultfds, 0);
  assert.deepEqual(fixture.stderr, '');
});

test('a child of fork finds no memory, and brings no page of zeros into it', options, async (t) => {
  const ram = join(memoryFolder(t), 'ram');
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
  await fixture.map(ram, 16);
  const channel = (await agent.next()).watch();
  assert.equal(await fixture.ask('fork 0 3', /^fork/), 'fork SIGSEGV');
  const file = MemoryFile.open(ram, { write: false });
  t.after(() => file.close());
  assert.equal(file.dataRuns(0, 16 * PAGE_BYTES).length, 0);
  fixture.say('touch 0 3 0');
  await channel.faultAt(0, 3);
});

test('memory that is given up before it is whole stays mapped, and is served on', options, async (t) => {
  const ram = join(memoryFolder(t), 'ram');
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
  await fixture.map(ram, 16);
  assert.equal(await fixture.ask('munmap 0 16', /^munmap/), 'munmap EBUSY');
  await fixture.says(/ram before it is whole: it stays mapped/);
  const channel = (await agent.next()).watch();
  fixture.say('touch 0 3 0');
  await channel.faultAt(0, 3);
});

test('what is given back before a guest runs needs no agent, as nothing is there', options, async (t) => {
  const ram = join(memoryFolder(t), 'ram');
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: '/nonexistent/agent.sock', PAGEWAKE_RAM: ram });
  await fixture.map(ram, 16);
  for (const how of ['dontneed', 'remove', 'punch'])
    assert.equal(await fixture.ask(`${how} 0 0 16`, new RegExp(`^${how}`)), `${how} ok`);
});

for (const how of ['remove', 'punch'] as const)
  test(
    `once a guest runs, the agent hears of what it gives back (${how}), and the file loses it`,
    options,
    async (t) => {
      const ram = join(memoryFolder(t), 'ram');
      const agent = new Agent(t);
      const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
      await fixture.map(ram, 16, { firstPage: 2 });
      const channel = (await agent.next()).watch();
      channel.say({ type: 'ready' });
      channel.fill(0, 0, 1, 16);
      // `ready` is read by a thread of its own: what is given back before that needs no agent, and is given back again.
      await until('the removal', () => {
        if (channel.removed.length === 0) fixture.say(`${how} 0 ${how === 'punch' ? 6 : 4} 3`);
        return channel.removed.length > 0;
      });
      assert.deepEqual(channel.removed[0], { start: channel.at(0, 4), end: channel.at(0, 7) });
      await fixture.line(new RegExp(`^${how} ok`));
      const file = MemoryFile.open(ram, { write: false });
      t.after(() => file.close());
      await until('the hole', () => file.dataRuns(6 * PAGE_BYTES, 3 * PAGE_BYTES).length === 0);
    },
  );

test(
  'once a guest runs its memory is not mapped anew, and a file that comes only then is new memory',
  options,
  async (t) => {
    const folder = memoryFolder(t);
    const agent = new Agent(t);
    const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: folder });
    await fixture.map(join(folder, 'ram'), 16);
    const first = (await agent.next()).watch();
    first.say({ type: 'ready' });
    first.close();
    const second = (await agent.next()).watch();
    assert.equal(second.handshake.content, 'live');
    assert.equal(await fixture.ask(`map shared ${join(folder, 'ram')} 16`, /^map/), 'map EBUSY');
    assert.equal(await fixture.ask('over 0', /^over/), 'over EBUSY');
    await fixture.map(join(folder, 'dimm'), 4);
    assert.equal(await fixture.ask('touch 1 0 0', /^touch/), 'touch 1 0 0');
    // Filling it by a touch of every page only asks for what comes anyway.
    fixture.say('populate-read 0 7 1');
    await second.faultAt(0, 7);
    second.fill(0, 7, 1);
    await fixture.line(/^populate-read ok/);
  },
);

test('huge pages are made only of memory that is whole', options, async (t) => {
  const ram = join(memoryFolder(t), 'ram');
  const agent = new Agent(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram });
  await fixture.map(ram, 16);
  const flags = (): string => {
    const [, mapping = ''] = readFileSync(`/proc/${fixture.pid}/smaps`, 'utf8').split(ram);
    return /^VmFlags:.*$/m.exec(mapping)?.[0] ?? '';
  };
  if (!/ nh\b/.test(flags())) return t.skip('this kernel makes no huge pages');
  assert.equal(await fixture.ask('hugepage 0 0 16', /^hugepage/), 'hugepage ok');
  assert.match(flags(), / nh\b/);
  const channel = await agent.next();
  channel.unregister();
  channel.say({ type: 'done' });
  await until('the advice', () => / hg\b/.test(flags()));
});

/** The library in the program that it is for. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { MemoryFile } from '@pagewake/native';
import { Agent, type Channel } from './agent.ts';
import { lacksQemu, Qemu, type QemuOptions } from './qemu.ts';
import { HANG_MS, memoryFolder, PAGE_BYTES, temporaryFolder, until } from './support.ts';

const options = { timeout: 3 * HANG_MS, skip: lacksQemu() };
const MIB_PAGES = 256;
/** Above what the firmware and QEMU's own ROM code use. */
const TOUCHED_PAGE = 2 * MIB_PAGES;

const MACHINES: readonly [what: string, options: Pick<QemuOptions, 'machine' | 'sandbox' | 'args'>][] = [
  ['pc', {}],
  ['pc under its sandbox', { sandbox: true }],
  ['q35 with VGA under its sandbox', { machine: 'q35', sandbox: true, args: ['-vga', 'std'] }],
  ['q35 with four vCPUs and a balloon', { machine: 'q35', args: ['-smp', '4', '-device', 'virtio-balloon'] }],
];

for (const [what, machine] of MACHINES)
  test(`QEMU (${what}) waits where it touches guest memory, and reads what the agent brings`, options, async (t) => {
    const ram = [join(memoryFolder(t), 'ram')];
    const agent = new Agent(t);
    const environment = { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram.join(':') };
    const qemu = await Qemu.start(t, environment, { ram, mibEach: 32, incoming: true, ...machine });
    const channel = (await agent.next()).watch();
    assert.equal(channel.handshake.regions[0]?.size, 32 * MIB_PAGES * PAGE_BYTES);
    assert.equal(channel.handshake.content, 'discard');
    // Its own start touches nothing, and its monitor answers.
    await qemu.execute('query-status');
    assert.equal(channel.faults.size, 0);
    const word = qemu.readWord(TOUCHED_PAGE * PAGE_BYTES);
    await channel.faultAt(0, TOUCHED_PAGE);
    channel.fill(0, TOUCHED_PAGE, 90);
    assert.match(String(await word), /0x5a5a5a5a/);
    await qemu.execute('quit');
    assert.deepEqual(await qemu.ended(), { code: 0, stderr: '' });
  });

test('QEMU with two NUMA backends hands over both', options, async (t) => {
  const folder = memoryFolder(t);
  const ram = ['node0', 'node1'].map((name) => join(folder, name));
  const agent = new Agent(t);
  const environment = { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: ram.join(':') };
  const qemu = await Qemu.start(t, environment, { ram, mibEach: 16, incoming: true, args: ['-smp', '4'] });
  const channel = (await agent.next()).watch();
  assert.deepEqual(
    channel.handshake.regions.map((r) => [r.name, r.size / PAGE_BYTES]),
    ram.map((path) => [path, 16 * MIB_PAGES]),
  );
  const word = qemu.readWord((16 * MIB_PAGES + 5) * PAGE_BYTES);
  await channel.faultAt(1, 5);
  channel.fill(1, 5, 17);
  assert.match(String(await word), /0x11111111/);
});

const REFUSED: readonly [what: string, backend: string, says: RegExp][] = [
  ['prealloc=on', 'share=on,prealloc=on', /fills \S+ before the migration.*prealloc=off/],
  ['share=off', 'share=off', /is mapped privately.*share=on/],
  ['readonly=on', 'share=on,readonly=on', /is mapped read-only/],
];

for (const [what, backend, says] of REFUSED)
  test(`QEMU with ${what} does not start`, options, async (t) => {
    const ram = [join(memoryFolder(t), 'ram')];
    const file = MemoryFile.createMemfd('ram', 32 * MIB_PAGES * PAGE_BYTES);
    t.after(() => file.close());
    // readonly=on makes no file.
    if (what === 'readonly=on') ram[0] = `/proc/${process.pid}/fd/${file.fd}`;
    const environment = { PAGEWAKE_SOCKET: '/nonexistent/agent.sock', PAGEWAKE_RAM: ram.join(':') };
    const qemu = Qemu.spawn(t, environment, { ram, mibEach: 32, incoming: true, backend });
    const { code, stderr } = await qemu.ended();
    assert.equal(code, 1);
    assert.match(stderr, says);
  });

const UNNAMED: readonly [what: string, backend: string, says: RegExp][] = [
  ['another RAM file', 'share=on', /what it has mapped is \S+\/ram: name that\n$/],
  ['private memory', 'share=off', /its RAM has to be a memory-backend-file with share=on/],
];

for (const [what, backend, says] of UNNAMED)
  test(`QEMU with ${what} than PAGEWAKE_RAM names says so, once, and runs on`, options, async (t) => {
    const folder = memoryFolder(t);
    const environment = { PAGEWAKE_SOCKET: '/nonexistent/agent.sock', PAGEWAKE_RAM: `${folder}/rma:${folder}/more` };
    const ram = [join(folder, 'ram')];
    const qemu = await Qemu.start(t, environment, { ram, mibEach: 32, incoming: true, backend });
    await qemu.says(/\n/);
    assert.match(
      qemu.stderr,
      /^pagewake-shim: QEMU has mapped nothing that PAGEWAKE_RAM names \(\S+\/rma, \S+\/more\)/,
    );
    assert.match(qemu.stderr, says);
    await until('the thread to end', () => !qemu.threads().includes('pagewake-look'));
    await qemu.execute('quit');
    const { code, stderr } = await qemu.ended();
    assert.equal(code, 0);
    assert.equal(stderr.split('\n').length, 2, stderr);
  });

test('QEMU that locks its memory does not start', options, async (t) => {
  const ram = [join(memoryFolder(t), 'ram')];
  const environment = { PAGEWAKE_SOCKET: '/nonexistent/agent.sock', PAGEWAKE_RAM: ram.join(':') };
  const args = ['-overcommit', 'mem-lock=on'];
  const { code, stderr } = await Qemu.spawn(t, environment, { ram, mibEach: 32, incoming: true, args }).ended();
  assert.equal(code, 1);
  assert.match(stderr, /locks all of its memory/);
});

/** Serves every page from the source's file, faults first. */
function serveFrom(channel: Channel, source: string, t: TestContext): () => void {
  const memory = readFileSync(source);
  const place = (address: number, bytes: number): void => {
    const offset = address - channel.at(0, 0);
    channel.uffd.copy(address, memory, offset, bytes, true);
    channel.uffd.wake(address, bytes);
  };
  const timer = setInterval(() => {
    for (const address of channel.faults) {
      place(address, PAGE_BYTES);
      channel.faults.delete(address);
    }
  }, 1);
  t.after(() => clearInterval(timer));
  return () => {
    for (let page = 0; page < memory.length / PAGE_BYTES; page++) place(channel.at(0, page), PAGE_BYTES);
  };
}

test('a guest that moves paused has every byte, is let go, and runs', options, async (t) => {
  const folder = memoryFolder(t);
  const [from, to] = [join(folder, 'source'), join(folder, 'destination')];
  const agent = new Agent(t);
  const machine: Pick<QemuOptions, 'mibEach' | 'machine'> = { mibEach: 32, machine: 'q35' };
  const source = await Qemu.start(t, {}, { ...machine, ram: [from] });
  const environment = { PAGEWAKE_SOCKET: agent.path, PAGEWAKE_RAM: to };
  const destination = await Qemu.start(t, environment, { ...machine, ram: [to], incoming: true, sandbox: true });
  const channel = (await agent.next()).watch();
  channel.say({ type: 'held' });
  // The firmware has written something.
  const file = MemoryFile.open(from, { write: false });
  t.after(() => file.close());
  await until('the firmware to write', () => file.dataRuns(0, 32 * MIB_PAGES * PAGE_BYTES).length > 4);
  await source.execute('stop');

  const uri = `unix:${join(temporaryFolder(t), 'migration.sock')}`;
  await source.capabilities('events', 'x-ignore-shared', 'pause-before-switchover');
  await destination.capabilities('events', 'x-ignore-shared');
  await destination.execute('migrate-incoming', { uri });
  await source.execute('migrate', { uri });
  await source.migrationIs('pre-switchover');
  const fillAll = serveFrom(channel, from, t);
  channel.say({ type: 'ready' });
  await source.execute('migrate-continue', { state: 'pre-switchover' });
  await source.migrationIs('completed');
  await destination.migrationIs('completed');
  fillAll();
  channel.unregister();
  channel.say({ type: 'done' });
  await until('the thread to end', () => !destination.threads().includes('pagewake-shim'));
  assert.equal(destination.userfaultfds, 0);
  assert.ok(readFileSync(from).equals(readFileSync(to)));
  await destination.execute('cont');
  assert.deepEqual(await destination.execute('query-status'), { status: 'running', running: true });
  await destination.execute('quit');
  assert.deepEqual(await destination.ended(), { code: 0, stderr: '' });
});

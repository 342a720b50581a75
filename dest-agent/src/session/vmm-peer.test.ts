import assert from 'node:assert/strict';
import { closeSync, readdirSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { MemoryFile } from '@pagewake/native';
import { MigrationPhase } from '@pagewake/proto';
import { handOver, RawPeer, reasonOf, regionOf, startDest, startVmm, type TestDest } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, seen } from '../../test/pages.ts';
import { takeOver } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };
const PAGES = 64;

interface Waiting {
  readonly dest: TestDest;
  readonly socket: string;
}

async function awaiting(t: TestContext): Promise<Waiting> {
  const source = await startFakeSource(t, { pages: PAGES });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  return { dest, socket: vmmSocket };
}

async function completesWithAnother(t: TestContext, { dest, socket }: Waiting): Promise<void> {
  assert.equal((await dest.get('m')).phase, MigrationPhase.AWAITING_VMM);
  const vmm = await startVmm(t);
  handOver(vmm, socket);
  await dest.phase('m', MigrationPhase.COMPLETED);
  assert.deepEqual(await vmm.touch(0, 33), seen(content(33)));
}

const isRefused = async (peer: RawPeer, message: RegExp): Promise<void> => {
  const told = await peer.message();
  assert.deepEqual([told['type'], told['reason']], ['failed', 'BAD_HANDSHAKE']);
  assert.match(String(told['message']), message);
  await peer.closed();
};

const region = { base_host_virt_addr: 2 ** 40, size: PAGES * 4096, offset: 0, page_size: 4096 };
const offer = (change: Record<string, unknown> = {}): string =>
  `${JSON.stringify({ protocol: 'pagewake/1', vm: 'demo', regions: [region], fds: ['uffd'], registered: ['missing'], vcpus: [], ...change })}\n`;

// ── Not a handshake: the next VMM may come ────────────────────────────────────────────────────────────────────────

test('what is no handshake is refused with what is wrong, and the next VMM is served', UFFD, async (t) => {
  const waiting = await awaiting(t);
  for (const [text, message] of [
    ['GET / HTTP/1.1\r\n\r\n', /not JSON.*GET/],
    ['\0\0\0\x04junk', /not JSON/],
    ['{"protocol":"pagewake/1"\n', /not JSON/],
    ['{}\n', /protocol/],
    ['{"protocol":"pagewake/7"}\n', /protocol/],
    [offer({ regions: [{ ...region, size: -1 }] }), /regions\.0\.size/],
    [offer({ fds: ['uffd', 'memfd'] }), /fds names 2 descriptors, 0 came/],
    [offer({ surprise: true }), /surprise/],
    ['[{"size":4096}]', /0\.base_host_virt_addr/],
    [`{"protocol":"${'x'.repeat(300_000)}`, /longer than 262144 bytes/],
  ] as const) {
    const peer = new RawPeer(t, waiting.socket);
    peer.send(text);
    await isRefused(peer, message);
  }
  await completesWithAnother(t, waiting);
});

test(
  'half a handshake and then the end, and a peer that says nothing and goes, leave the socket to the next',
  UFFD,
  async (t) => {
    const waiting = await awaiting(t);
    const half = new RawPeer(t, waiting.socket);
    half.send('{"protocol":"pagewake/1","regions":[');
    half.close();
    const silent = new RawPeer(t, waiting.socket);
    silent.close();
    const vmm = await startVmm(t);
    await until('the socket is free again', async () => {
      const peer = new RawPeer(t, waiting.socket);
      peer.send('x\n');
      const { message } = await peer.message();
      return !/another VMM/.test(String(message));
    });
    handOver(vmm, waiting.socket);
    await waiting.dest.phase('m', MigrationPhase.COMPLETED);
  },
);

test('a handshake in pieces, with its descriptors on the first, is a handshake', UFFD, async (t) => {
  const { dest, socket } = await awaiting(t);
  const vmm = await startVmm(t);
  const fds = await takeOver(t, vmm, ['uffd', 'memfd']);
  const peer = new RawPeer(t, socket);
  const text = offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd'] });
  peer.send(text.slice(0, 10), fds);
  await dest.get('m');
  peer.send(text.slice(10, 90));
  await dest.get('m');
  peer.send(text.slice(90));
  assert.deepEqual(await peer.message(), { type: 'ready' });
  assert.deepEqual(await peer.message(), { type: 'done' });
  fds.forEach((fd) => closeSync(fd));
});

test('refused peers leave no descriptors behind', UFFD, async (t) => {
  const waiting = await awaiting(t);
  const file = MemoryFile.createMemfd('test', 4096);
  t.after(() => file.close());
  const refuse = async (): Promise<void> => {
    const peer = new RawPeer(t, waiting.socket);
    peer.send('{"protocol":"pagewake/7"}\n', [file.fd, file.fd, file.fd]);
    await isRefused(peer, /protocol/);
  };
  await refuse();
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 20; i++) await refuse();
  await until('descriptors are back to what they were', () => readdirSync('/proc/self/fd').length <= before);
});

// ── A handshake whose memory is not what it says: the migration fails (all the ways: admission.test.ts) ───────────

test(
  'a uffd that is no userfaultfd: the VMM and the orchestrator are told, and the source is never asked',
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const file = MemoryFile.createMemfd('test', 4096);
    t.after(() => file.close());
    const peer = new RawPeer(t, vmmSocket);
    peer.send(offer(), [file.fd]);
    await isRefused(peer, /named uffd is not a userfaultfd/);
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'BAD_HANDSHAKE');
    assert.equal(source.opens.length, 0);
  },
);

// ── While a VMM is there ──────────────────────────────────────────────────────────────────────────────────────────

test('a second VMM is turned away with a message, and the first is served on', UFFD, async (t) => {
  const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t);
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), { type: 'ready' });
  const second = new RawPeer(t, vmmSocket);
  await isRefused(second, /another VMM is on this socket already/);
  source.release();
  assert.deepEqual(await vmm.message(), { type: 'done' });
});

for (const [law, text, message] of [
  ['a message that is no JSON', 'what?', /not JSON/],
  ['a message of no known type', '{"type":"reset"}', /type/],
  ['a line without an end', 'x'.repeat(300_000), /longer than 262144 bytes/],
] as const)
  test(`${law} after the handshake fails the migration, and the VMM is told why`, UFFD, async (t) => {
    const source = await startFakeSource(t, { pages: PAGES, bulk: () => undefined });
    const dest = await startDest(t);
    const { vmmSocket } = await dest.start(source.address);
    const vmm = await startVmm(t);
    handOver(vmm, vmmSocket);
    assert.deepEqual(await vmm.message(), { type: 'ready' });
    vmm.send(text);
    const told = await vmm.message();
    assert.deepEqual([told['type'], told['reason']], ['failed', 'BAD_HANDSHAKE']);
    assert.match(String(told['message']), message);
    assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'BAD_HANDSHAKE');
  });

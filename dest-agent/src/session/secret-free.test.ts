/** A VMM that speaks as Firecracker's secret-free branch does, with real descriptors; its memory is a memfd. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { MemoryFile } from '@pagewake/native';
import { MigrationMode, MigrationPhase } from '@pagewake/proto';
import {
  failure,
  handOver,
  RawPeer,
  reasonOf,
  regionOf,
  socketOf,
  startDest,
  startVmm,
  type TestDest,
} from '../../test/agent.ts';
import { startFakeSource, type FakeSource, type SourceScript } from '../../test/fake-source.ts';
import { content, PAGE_BYTES, seen } from '../../test/pages.ts';
import { takeOver } from '../../test/rig.ts';
import { lacking, type Toucher } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = {
  ...BUDGET,
  skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'MINOR on memfd', 'UFFDIO_POISON'),
};
const PAGES = 64;
const FDS = ['uffd', 'memfd', 'bitmap'] as const;
const WORD = 'no_exitless_apf';

interface Rig {
  readonly source: FakeSource;
  readonly dest: TestDest;
  readonly vmm: Toucher;
}

/** Prefetch rests until it is resumed: only what is asked for comes. */
async function startQuietRig(t: TestContext, script: Partial<SourceScript> = {}): Promise<Rig> {
  const rig = await startRig(t, script);
  await rig.dest.client.pause({ migrationId: 'm' });
  return rig;
}

async function completes({ dest }: Rig) {
  await dest.client.resume({ migrationId: 'm' });
  return dest.phase('m', MigrationPhase.COMPLETED);
}

async function startRig(t: TestContext, script: Partial<SourceScript> = {}, mode?: MigrationMode): Promise<Rig> {
  const source = await startFakeSource(t, { pages: PAGES, ...script });
  const dest = await startDest(t);
  await dest.start(source.address, mode === undefined ? {} : { mode });
  return { source, dest, vmm: await startVmm(t, { pages: PAGES, minor: true, removeEvents: true }) };
}

const arrayOf = (vmm: Toucher): string => JSON.stringify([{ ...regionOf(vmm), gpa_start: 0, is_guest_memfd: false }]);

/** Hands over all but the word. */
const handOverArray = ({ dest, vmm }: Rig): void => vmm.handOver(socketOf(dest), FDS, arrayOf(vmm));

const request = (page: number, vcpu = 0, token: number | null = null): string =>
  JSON.stringify({ vcpu, offset: page * PAGE_BYTES, flags: 16, token });
const answer = (page: number, vcpu = 0, token: number | null = null) => ({
  ...{ vcpu, offset: page * PAGE_BYTES, len: PAGE_BYTES, flags: 16 },
  ...{ token, zero: false },
});

test(
  'the array, the word, faults of both kinds: each page comes, and each fault message has its answer',
  UFFD,
  async (t) => {
    const rig = await startQuietRig(t);
    const { vmm } = rig;
    handOverArray(rig);
    vmm.send(WORD);
    vmm.send(request(5, 1, 9));
    assert.deepEqual(await vmm.message(), answer(5, 1, 9));
    assert.deepEqual([await vmm.bit(5), await vmm.bit(7)], [false, true]);
    assert.deepEqual(await vmm.touch(0, 5), seen(content(5)));
    assert.deepEqual(await vmm.touch(1, 6), seen(content(6)));
    // A fault message of a page that is there already.
    vmm.send(request(6));
    assert.deepEqual(await vmm.message(), answer(6));
    const { faults } = await completes(rig);
    assert.equal(faults?.stage2, 2n);
    assert.equal(await vmm.bit(63), false);
    assert.deepEqual(vmm.unread(), []);
  },
);

test('messages back to back, cut anywhere, each have an answer of their own', UFFD, async (t) => {
  const rig = await startQuietRig(t);
  const { vmm } = rig;
  handOverArray(rig);
  const faults = [0, 1, 2, 3, 4, 5, 6, 7];
  // Each piece ends with a newline, which is as good as nothing between two tokens.
  const pieces = `${WORD}${faults.map((page) => request(page, page)).join('')}`.split(/(?<=[,{])/);
  for (let i = 0; i < pieces.length; i += 3) vmm.send(pieces.slice(i, i + 3).join(''));
  const answers: Record<string, unknown>[] = [];
  while (answers.length < faults.length) answers.push(await vmm.message());
  assert.deepEqual(
    answers.toSorted((a, b) => Number(a['vcpu']) - Number(b['vcpu'])),
    faults.map((page) => answer(page, page)),
  );
  await completes(rig);
});

test('nothing is done with the memory before the word: its bitmap may not be filled yet', UFFD, async (t) => {
  const rig = await startRig(t);
  const { dest, vmm, source } = rig;
  handOverArray(rig);
  vmm.send('no_exit');
  // A round trip through the agent's loop behind what was sent.
  assert.equal((await dest.get('m')).phase, MigrationPhase.AWAITING_VMM);
  assert.equal(source.opens.length, 0);
});

test('a fault message that comes before the source is opened waits, and is answered', UFFD, async (t) => {
  const open = Promise.withResolvers<void>();
  const rig = await startRig(t, { onOpen: () => open.promise });
  const { dest, vmm } = rig;
  handOverArray(rig);
  vmm.send(`${WORD}${request(3)}`);
  await dest.phase('m', MigrationPhase.OPENING);
  open.resolve();
  assert.deepEqual(await vmm.message(), answer(3));
  await dest.phase('m', MigrationPhase.COMPLETED);
});

test('a page that is known to be zero is written, and not left to the VMM', UFFD, async (t) => {
  const rig = await startQuietRig(t, { zeroRuns: [{ region: 0, firstPages: [10], pageCounts: [4] }] });
  const { vmm } = rig;
  handOverArray(rig);
  vmm.send(`${WORD}${request(11)}`);
  assert.deepEqual(await vmm.message(), answer(11));
  assert.deepEqual(await vmm.touch(0, 11), seen(Buffer.alloc(PAGE_BYTES)));
  await completes(rig);
});

test('who asks when every page is there is answered, however late, until the agent ends', UFFD, async (t) => {
  const rig = await startRig(t);
  const { dest, vmm } = rig;
  handOverArray(rig);
  vmm.send(WORD);
  await dest.phase('m', MigrationPhase.COMPLETED);
  await until('the session has let go', () => !readdirSync(dest.socketDir).includes('demo.sock'));
  for (const page of [0, 63]) {
    vmm.send(request(page, 2));
    assert.deepEqual(await vmm.message(), answer(page, 2));
  }
  await dest.leave();
  await vmm.channelClosed();
});

test('who asks while the last pages come is answered once, whoever was first', UFFD, async (t) => {
  const rig = await startRig(t);
  const { dest, vmm } = rig;
  handOverArray(rig);
  vmm.send(WORD);
  const asked: string[] = [];
  for (let vcpu = 0; vcpu < 16; vcpu++)
    for (let page = 0; page < PAGES; page += 4) {
      asked.push(JSON.stringify(answer(page, vcpu)));
      vmm.send(request(page, vcpu));
    }
  const answered: string[] = [];
  while (answered.length < asked.length) answered.push(JSON.stringify(await vmm.message()));
  assert.deepEqual(answered.toSorted(), asked.toSorted());
  await dest.phase('m', MigrationPhase.COMPLETED);
  vmm.send(request(1, 99));
  assert.deepEqual(await vmm.message(), answer(1, 99));
  assert.deepEqual(vmm.unread(), []);
});

test('nonsense after the end closes the channel, and is nobody’s failure', UFFD, async (t) => {
  const rig = await startRig(t);
  const { dest, vmm } = rig;
  handOverArray(rig);
  vmm.send(WORD);
  await dest.phase('m', MigrationPhase.COMPLETED);
  vmm.send('what?');
  await vmm.channelClosed();
  assert.equal((await dest.get('m')).phase, MigrationPhase.COMPLETED);
});

for (const [law, text, message] of [
  ['an offset outside the memory', request(PAGES), /is no page that the VMM handed over/],
  ['no JSON', '{"vcpu":}', /a fault message is not JSON/],
] as const)
  test(
    `${law} in place of a fault message fails the migration, and the VMM, which cannot be told, is killed`,
    UFFD,
    async (t) => {
      const rig = await startQuietRig(t);
      const { dest, vmm } = rig;
      handOverArray(rig);
      vmm.send(`${WORD}${request(2)}`);
      await vmm.message();
      vmm.send(text);
      const failed = await dest.phase('m', MigrationPhase.FAILED);
      assert.equal(reasonOf(failed), 'BAD_HANDSHAKE');
      assert.match(failed.error?.message ?? '', message);
      assert.equal(await vmm.gone(), 'SIGKILL');
    },
  );

test('cancelled by force, its vCPUs that asked do not wait for ever: the VMM is killed', UFFD, async (t) => {
  const rig = await startQuietRig(t, { fault: () => undefined });
  const { dest, vmm } = rig;
  handOverArray(rig);
  vmm.send(`${WORD}${request(2)}`);
  await dest.phase('m', MigrationPhase.PAUSED);
  assert.equal((await failure(dest.client.cancel({ migrationId: 'm' }))).reason, 'WRONG_PHASE');
  await dest.client.cancel({ migrationId: 'm', force: true });
  assert.equal(await vmm.gone(), 'SIGKILL');
});

test('eager is refused: its guest does not wait', UFFD, async (t) => {
  const rig = await startRig(t, {}, MigrationMode.EAGER);
  const { dest, vmm } = rig;
  handOverArray(rig);
  vmm.send(WORD);
  assert.equal(reasonOf(await dest.phase('m', MigrationPhase.FAILED)), 'MISSING_CAPABILITY');
});

// ── Refused: the next VMM may come ────────────────────────────────────────────────────────────────────────────────

test(
  'what is no secret-free handshake is refused with what to do, leaves no descriptors, and the next VMM is served',
  UFFD,
  async (t) => {
    const rig = await startRig(t);
    const { dest, vmm } = rig;
    const fds = await takeOver(t, vmm, FDS);
    const array = arrayOf(vmm);
    const apf = MemoryFile.createMemfd('test', 4096);
    t.after(() => apf.close());
    const refused = async (
      pieces: readonly (readonly [string, readonly number[]])[],
      message: RegExp,
    ): Promise<void> => {
      const peer = new RawPeer(t, socketOf(dest));
      for (const [text, with_] of pieces) peer.send(text, with_);
      const told = await peer.message();
      assert.equal(told['reason'], 'BAD_HANDSHAKE');
      assert.match(String(told['message']), message);
      await peer.closed();
    };
    const all = async (): Promise<void> => {
      await refused(
        [
          [array, fds],
          ['exitless_apf:1', [apf.fd, apf.fd, apf.fd]],
        ],
        /exitless asynchronous page faults/,
      );
      await refused(
        [
          [array, fds],
          ['hello', []],
        ],
        /says no_exitless_apf behind its regions; this one says "hello"/,
      );
      await refused([[array, fds.slice(0, 2)]], /2 descriptors came with a Firecracker handshake/);
      await refused([[array.replace('"gpa_start":0,', ''), fds]], /0\.gpa_start/);
    };
    await all();
    const before = readdirSync('/proc/self/fd').length;
    for (let i = 0; i < 5; i++) await all();
    await until('descriptors are back to what they were', () => readdirSync('/proc/self/fd').length <= before);
    assert.equal((await dest.get('m')).phase, MigrationPhase.AWAITING_VMM);
    const next = await startVmm(t, { pages: PAGES });
    handOver(next, socketOf(dest));
    await dest.phase('m', MigrationPhase.COMPLETED);
  },
);

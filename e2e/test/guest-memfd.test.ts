/**
 * Guests whose stage-2 faults no userfaultfd sees: KVM exits show them, and write() resolves them. On guest_memfd, with user-space faults of both kinds
 * beside them, that needs a kernel that `npm run lab` boots; on memfd the protocol is the same everywhere, with exits that tell less.
 * The guest verifies every page that it touches, and the VMM looks at all the others in the end.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { migrate, TestVmmDriver } from '@pagewake/orchestrator';
import { startSourceAgent } from '../lib/agents.ts';
import { budget, IN_LAB } from '../lib/budget.ts';
import { whyNoNamespaces } from '../lib/hosts.ts';
import { whyNoKvm } from '../lib/machine.ts';
import { LOOPBACK, migrateGuest, startPair, temporaryFolder, vmm, type Case, type Pair } from '../lib/migration.ts';
import { MortalDest } from '../lib/restart.ts';
import { whyNoTier } from '../lib/tiers.ts';
import { migrateWithCut } from '../lib/two-hosts.ts';
import { filled, whyNoOption } from '../lib/vmm.ts';
import { assertWhole, type Ended } from '../lib/whole.ts';

/** What an emulated processor fills, moves and verifies in minutes; PAGEWAKE_LAB_RAM has another. */
const RAM_MIB = Number.parseInt(process.env['PAGEWAKE_LAB_RAM'] ?? '512', 10);

/** The share of a VMM's own thread is large: its pages are what userfaultfd sees of a guest_memfd. */
const guest = (ramMib: number): readonly string[] => [
  ...['--ram', `${ramMib}M`, '--workload', `${ramMib / 2}M`, '--vcpus', '2', '--vcpu-rate', '20000'],
  ...['--io-pages', String(ramMib * 64), '--io-rate', '20000'],
];
const SMALL = guest(96);
/** As fast as they can, on all cores: prefetch and faults want the same pages. */
const HARD = ['--vcpu-rate', '0', '--io-rate', '0'];
/** Ring 0 is for KVM that is not nested: else such code may be emulated, an instruction at a time. */
const LAB = [...guest(RAM_MIB), '--ring', '0'];
const LAB_SMALL = [...SMALL, '--ring', '0'];

const FULL = ['--memory', 'guest_memfd', '--stage2', 'userfault', '--register', 'missing,minor'];
const EXITS = ['--stage2', 'exit', '--bitmap'];

const noBitmap = whyNoKvm() ?? whyNoOption('--bitmap');
const noSecretFree = noBitmap ?? whyNoOption('secret-free');
const noFull = whyNoTier('guest-memfd-full') ?? whyNoOption('--ring');
const noUserfault = whyNoTier('memfd-userfault') ?? whyNoOption('--ring');

interface Row extends Case {
  readonly name: string;
  readonly skip: string | undefined;
  readonly cut?: 'cut';
  also?(ended: Ended): void;
}

/** Each of the three calls was taken, for a fault that somebody waited for. */
function everyCall({ summary: { faults, tier, mode }, stats }: Ended): void {
  assert.equal(tier, 'guest-memfd-full');
  assert.equal(mode, 'post-copy');
  assert.ok(faults.byCopy > 0 && faults.byContinue > 0 && faults.byWrite > 0, JSON.stringify(faults));
  assert.ok(faults.userSpace > 0 && faults.stage2 > 0 && faults.minor > 0, JSON.stringify(faults));
  assert.ok(Number(stats['stage2_exits']) > 0, JSON.stringify(stats));
}

function byRequest({ summary: { faults, tier }, stats }: Ended): void {
  assert.equal(tier, 'memfd-userfault');
  assert.ok(Number(stats['stage2_exits']) > 0, JSON.stringify(stats));
  assert.ok(faults.stage2 > 0 && faults.byWrite > 0, JSON.stringify(faults));
}

const IN_THE_LAB: readonly Row[] = [
  {
    name: 'guest_memfd: user-space faults by COPY and CONTINUE, stage-2 faults by write(), while vCPUs and the VMM’s own thread touch',
    skip: noFull,
    source: LAB,
    destination: FULL,
    also: everyCall,
  },
  {
    name: 'guest_memfd, with prefetch and faults racing for the same pages',
    skip: noFull,
    source: [...LAB, ...HARD],
    destination: FULL,
    also: ({ summary, stats }) => {
      assert.equal(summary.tier, 'guest-memfd-full');
      assert.ok(summary.pages.byPrefetch > 0 && Number(stats['stage2_exits']) > 0, JSON.stringify(summary.pages));
    },
  },
  {
    name: 'guest_memfd, with the link cut once in the middle',
    skip: noFull ?? whyNoNamespaces(),
    source: LAB,
    destination: FULL,
    cut: 'cut',
    also: everyCall,
  },
  {
    name: 'guest_memfd with a balloon that gives pages back while prefetch runs',
    skip: noFull,
    source: [...LAB_SMALL, '--balloon-area', '16M'],
    destination: [...FULL, '--balloon', '2000'],
    also: ({ summary, verified }) => {
      assert.ok(summary.faults.removedEvents > 0, JSON.stringify(summary.faults));
      assert.ok(Number(verified['balloon_pages']) > 0);
    },
  },
  {
    name: 'guest_memfd by Firecracker’s secret-free handshake',
    skip: noFull,
    source: LAB_SMALL,
    destination: [...FULL, '--handshake', 'secret-free'],
    also: everyCall,
  },
  {
    name: 'guest_memfd without a trap: every page before the vCPUs run',
    skip: IN_LAB ? whyNoTier('guest-memfd-eager') : 'migration.test.ts has it; npm run lab runs it here',
    source: [...LAB_SMALL, '--memory', 'guest_memfd'],
    destination: ['--memory', 'guest_memfd'],
    also: ({ summary: { tier, mode, faults } }) => {
      assert.deepEqual([tier, mode, faults.total], ['guest-memfd-eager', 'eager', 0]);
    },
  },
  {
    name: 'memfd with KVM userfault: stage-2 faults by write() alone, the VMM’s own thread by userfaultfd',
    skip: noUserfault,
    source: LAB_SMALL,
    destination: ['--memory', 'memfd', '--stage2', 'userfault'],
    also: (ended) => {
      assert.ok(ended.summary.faults.byCopy > 0, JSON.stringify(ended.summary.faults));
      byRequest(ended);
    },
  },
];

const ANYWHERE: readonly Row[] = [
  {
    name: 'memfd with a bitmap: no page is answered while its bit is set, and in the end none is',
    skip: noBitmap,
    source: SMALL,
    destination: EXITS,
    also: byRequest,
  },
  {
    name: 'memfd with a bitmap, 6 vCPUs as fast as they can: faults that come together are asked for together',
    skip: noBitmap,
    source: [...SMALL, ...HARD, '--vcpus', '6'],
    destination: EXITS,
    also: (ended) => {
      byRequest(ended);
      assert.ok(Number(ended.stats['stage2_batches']) > 0, JSON.stringify(ended.stats));
    },
  },
  {
    name: 'memfd with a bitmap, MISSING and MINOR',
    skip: noBitmap,
    source: SMALL,
    destination: [...EXITS, '--register', 'missing,minor'],
    also: (ended) => {
      byRequest(ended);
      assert.ok(ended.summary.faults.byContinue > 0, JSON.stringify(ended.summary.faults));
    },
  },
  {
    name: 'memfd with a bitmap, with the link cut once in the middle',
    skip: noBitmap ?? whyNoNamespaces(),
    source: SMALL,
    destination: EXITS,
    cut: 'cut',
    also: byRequest,
  },
  {
    name: 'memfd with a bitmap and a balloon that gives pages back while prefetch runs',
    skip: noBitmap,
    source: [...SMALL, '--balloon-area', '16M'],
    destination: [...EXITS, '--balloon', '2000'],
    also: ({ summary }) => assert.ok(summary.faults.removedEvents > 0),
  },
  {
    name: 'memfd by Firecracker’s secret-free handshake, stage-2 faults as JSON objects back to back',
    skip: noSecretFree,
    source: SMALL,
    destination: [...EXITS, '--register', 'missing,minor', '--handshake', 'secret-free'],
    also: byRequest,
  },
];

function overACut(t: TestContext, { source, destination = [] }: Row): Promise<Ended> {
  return migrateWithCut(t, { source, destination, linkMbitPerS: IN_LAB ? undefined : 200 });
}

// An emulated processor is for what runs nowhere else.
const ROWS = IN_LAB ? IN_THE_LAB : [...IN_THE_LAB, ...ANYWHERE];

const EACH_MS = budget(120_000);

// One pair of agents meets all that need no hosts of their own: an emulated Node takes long to start.
test('stage-2 faults that no userfaultfd sees', { timeout: ROWS.length * EACH_MS }, async (suite) => {
  let pair: Promise<Pair> | undefined;
  const throughPair = async (t: TestContext, row: Row): Promise<Ended> => {
    const mine = (pair ??= startPair(suite));
    // A VM whose migration failed may still be registered: the next gets agents that know nothing of it.
    pair = undefined;
    const outcome = await migrateGuest(t, await mine, row);
    pair = mine;
    return outcome;
  };
  for (const row of ROWS)
    await suite.test(row.name, { skip: row.skip ?? false, timeout: EACH_MS }, async (t) => {
      const outcome = row.cut ? await overACut(t, row) : await throughPair(t, row);
      const { tier, faults, pages } = outcome.summary;
      t.diagnostic(JSON.stringify({ tier, faults, pages, vmm: outcome.stats }));
      assertWhole(outcome, row.cut ? 'some' : 'none');
      row.also?.(outcome);
    });
});

interface Mortal {
  readonly name: string;
  readonly skip: string | undefined;
  readonly source: readonly string[];
  readonly destination: readonly string[];
}

const MORTALS: readonly Mortal[] = [
  { name: 'guest_memfd', skip: noFull, source: LAB_SMALL, destination: FULL },
  {
    name: 'memfd with a bitmap',
    skip: IN_LAB ? 'it runs without the lab' : noBitmap,
    source: SMALL,
    destination: EXITS,
  },
];

for (const { name, skip, source, destination } of MORTALS)
  test(`killed while it fills, the agent that comes after goes on: ${name}`, { skip: skip ?? false }, async (t) => {
    const folder = temporaryFolder(t);
    const sourceAgent = await startSourceAgent(LOOPBACK);
    t.after(() => sourceAgent.program.stop());
    const dest = await MortalDest.start(LOOPBACK, join(folder, 'vmm'));
    t.after(() => dest.stop());
    const from = await vmm(t, 'source', folder, source);
    await filled(from);
    const to = await vmm(t, 'destination', folder, ['--handover', 'keep', ...destination]);
    const { result } = migrate({
      driver: new TestVmmDriver({ sourceSocket: from.controlPath, destinationSocket: to.controlPath }),
      source: { address: sourceAgent.address },
      destination: { address: dest.address },
    });
    await to.program.waitFor('the guest to run', (line) => line['event'] === 'resumed');
    await dest.kill();
    await dest.startAgain();
    await result;
    assert.equal((await to.control.send('verify'))['wrong'], 0);
    assert.equal((await to.control.send('stats'))['wrong'], 0);
  });

/**
 * Whole migrations of a running guest between two agents: every kind of memory, every way of resolving. In each of them the guest itself verifies
 * every page that it touches, and the VMM looks at all the others in the end.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { whyNoHugePages, whyNoKvm } from '../lib/machine.ts';
import {
  migrateGuest,
  migrateSnapshot,
  startPair,
  temporaryFolder,
  type Case,
  type Outcome,
  type PairOptions,
} from '../lib/migration.ts';
import { TESTVMM } from '../lib/vmm.ts';
import { assertWhole } from '../lib/whole.ts';

const SMALL = ['--ram', '96M', '--workload', '48M', '--vcpu-rate', '20000'];
const noKvm = whyNoKvm();

interface Row extends Case {
  readonly name: string;
  readonly skip?: string | undefined;
  readonly agents?: PairOptions;
  also?(outcome: Outcome): void;
}

const ROWS: readonly Row[] = [
  {
    name: 'memfd, 1 vCPU, MISSING: stage-2 faults by write, user-space faults by COPY, zeros by ZEROPAGE',
    source: [...SMALL, '--vcpus', '1'],
    also: ({ summary: { faults, tier, mode } }) => {
      assert.equal(tier, 'memfd');
      assert.equal(mode, 'post-copy');
      assert.ok(faults.byCopy > 0 && faults.byZeropage > 0 && faults.userSpace > 0, JSON.stringify(faults));
      assert.equal(faults.minor, 0);
      if (noKvm === undefined) assert.ok(faults.stage2 > 0 && faults.byWrite > 0, JSON.stringify(faults));
    },
  },
  { name: 'memfd, 4 vCPUs', source: [...SMALL, '--vcpus', '4'] },
  {
    name: 'memfd, MISSING and MINOR: what prefetch wrote is a minor fault, resolved by CONTINUE',
    source: [...SMALL, '--vcpus', '2'],
    destination: ['--register', 'missing,minor'],
    also: ({ summary: { faults } }) => {
      assert.ok(faults.minor > 0 && faults.byContinue > 0, JSON.stringify(faults));
      assert.ok(faults.byCopy > 0);
    },
  },
  {
    name: 'anonymous memory: COPY throughout',
    source: [...SMALL, '--memory', 'anon', '--vcpus', '2'],
    destination: ['--memory', 'anon'],
    also: ({ summary: { faults, tier } }) => {
      assert.equal(tier, 'anonymous');
      assert.ok(faults.byCopy > 0);
      assert.equal(faults.byWrite, 0);
    },
  },
  {
    name: 'guest_memfd: every page before the vCPUs run, with the reason said',
    source: ['--ram', '64M', '--workload', '32M', '--memory', 'guest_memfd'],
    destination: ['--memory', 'guest_memfd'],
    skip: noKvm,
    also: ({ summary: { faults, tier, mode, modeReason } }) => {
      assert.equal(tier, 'guest-memfd-eager');
      assert.equal(mode, 'eager');
      assert.match(modeReason, /userfaultfd registration of a guest_memfd/);
      assert.equal(faults.total, 0);
    },
  },
  { name: 'memfd, eager: asked for', source: SMALL, mode: 'eager' },
  {
    name: 'a guest of three regions, 4 vCPUs, MISSING and MINOR',
    source: [...SMALL, '--regions', '3', '--vcpus', '4'],
    destination: ['--register', 'missing,minor'],
    also: ({ summary }) => assert.equal(summary.pages.total, (96 << 20) / 4096),
  },
  {
    name: 'zero-heavy memory: what is zero costs next to no bytes, known beforehand or not',
    source: [...SMALL, '--pattern', 'zero-heavy', '--zero-fill', '8M'],
    also: ({ summary, result }) => {
      // Written zeros are no holes: they count as data, and are found when they are read.
      assert.ok(result.zeroPages > 0);
      assert.ok(summary.payloadBytes < result.dataPages * 4096 * 0.5, `${summary.payloadBytes} bytes`);
    },
  },
  {
    name: 'text-like memory: LZ4 on the bulk lane sends less than the pages have',
    source: [...SMALL, '--pattern', 'text'],
    // Left to itself it leaves a link alone that is faster, as loopback is.
    agents: { source: { flags: ['--compression', 'lz4'] } },
    also: ({ summary, result }) => assert.ok(summary.payloadBytes < result.dataPages * 4096 * 0.9),
  },
  {
    name: 'everything over gRPC on one port',
    source: [...SMALL, '--vcpus', '2'],
    agents: { source: { flags: ['--lanes', 'grpc'] } },
    also: ({ summary: { pages, faults } }) =>
      assert.ok(pages.byFault > 0 && pages.byPrefetch > 0 && faults.fromSource > 0, JSON.stringify({ pages, faults })),
  },
  {
    name: 'stage-2 faults that only KVM exits show, asked for on the VMM channel and resolved by write',
    source: [...SMALL, '--vcpus', '2'],
    destination: ['--stage2', 'exit'],
    skip: noKvm,
    also: ({ summary: { faults }, stats }) => {
      assert.ok(Number(stats['stage2_exits']) > 0);
      assert.ok(faults.stage2 >= Number(stats['stage2_exits']));
      assert.ok(faults.byWrite > 0);
    },
  },
  {
    name: 'Firecracker’s handshake on anonymous memory, with a balloon that gives pages back',
    source: [...SMALL, '--memory', 'anon', '--balloon-area', '8M'],
    destination: ['--memory', 'anon', '--handshake', 'firecracker', '--balloon', '1000'],
    also: ({ summary, verified }) => {
      assert.ok(summary.faults.removedEvents > 0);
      assert.ok(Number(verified['balloon_pages']) > 0);
    },
  },
  {
    name: 'memfd with a balloon that gives pages back while prefetch runs',
    source: [...SMALL, '--balloon-area', '16M'],
    destination: ['--balloon', '3000'],
    also: ({ summary }) => assert.ok(summary.faults.removedEvents > 0),
  },
  {
    name: 'memory of 2 MiB pages',
    source: ['--ram', '64M', '--workload', '32M', '--page-size', '2097152'],
    skip: whyNoHugePages(),
  },
  { name: 'the workload on plain threads', source: [...SMALL, '--no-kvm'], destination: ['--no-kvm'] },
];

for (const row of ROWS)
  test(row.name, { skip: row.skip ?? false }, async (t) => {
    const outcome = await migrateGuest(t, await startPair(t, row.agents), row);
    assertWhole(outcome);
    row.also?.(outcome);
    assert.equal(await outcome.vmm.program.stop(), 0);
  });

test('a snapshot file is a source', async (t) => {
  const image = join(temporaryFolder(t), 'snapshot');
  const made = spawnSync(
    TESTVMM,
    ['snapshot', '--out', image, '--ram', '96M', '--workload', '48M', '--quiet-heartbeats'],
    {
      encoding: 'utf8',
    },
  );
  assert.equal(made.status, 0, made.stderr);
  assertWhole(await migrateSnapshot(t, await startPair(t), image));
});

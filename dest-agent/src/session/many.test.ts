/** Many migrations at once on one agent: each whole, and nothing of them left. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { MigrationPhase } from '@pagewake/proto';
import { handOver, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, seen } from '../../test/pages.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd') };
const PAGES = 64;
const MIGRATIONS = 16;
const LANES = ['fault-worker', 'bulk-worker'];

/** Threads of this process that are a lane, as the kernel calls them. */
const lanes = (): number => readdirSync('/proc/self/task').filter((id) => LANES.includes(nameOf(id))).length;

function nameOf(thread: string): string {
  try {
    return readFileSync(`/proc/self/task/${thread}/comm`, 'utf8').trim();
  } catch {
    return 'ended meanwhile';
  }
}

test(
  `${MIGRATIONS} migrations that are started at once are all whole, and give their threads back`,
  UFFD,
  async (t) => {
    const source = await startFakeSource(t, { pages: PAGES });
    const dest = await startDest(t);
    const ids = Array.from({ length: MIGRATIONS }, (_, i) => `m${i}`);
    const vmms = await Promise.all(ids.map(() => startVmm(t)));
    let most = 0;
    await Promise.all(
      ids.map(async (migrationId, i) => {
        const names = { migrationId, vmId: migrationId, vmmSocketName: `${migrationId}.sock` };
        const { vmmSocket } = await dest.start(source.address, names);
        const vmm = vmms[i] ?? assert.fail();
        most = Math.max(most, lanes());
        handOver(vmm, vmmSocket, { vm: migrationId });
        const page = (i * 7) % PAGES;
        assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
        await dest.phase(migrationId, MigrationPhase.COMPLETED);
      }),
    );
    assert.ok(most > 0, 'they had threads');
    for (const vmm of vmms)
      for (const page of [0, 31, 63]) assert.deepEqual(await vmm.touch(0, page), seen(content(page)));
    await until('no lane runs any more', () => lanes() === 0);
  },
);

/**
 * A real firecracker: its snapshot is served by the source agent, and another one loads it with its memory from the destination agent
 * (`mem_backend` Uffd). Runs where FIRECRACKER_BIN, FIRECRACKER_KERNEL and FIRECRACKER_ROOTFS are, on a KVM that boots a stock kernel.
 */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { migrate, summaryOf, type MigrationSummary } from '@pagewake/orchestrator';
import { Firecracker, stock, whyNoFirecracker } from '../firecracker/binary.ts';
import { FirecrackerDriver, type SnapshotFiles } from '../firecracker/driver.ts';
import { startPair, type Pair } from '../lib/migration.ts';

const MEMORY_MIB = 128;
const PAGE_BYTES = 4096;
const RUNS_ON_MS = 3000;

interface Rig {
  readonly pair: Pair;
  readonly bin: string;
  readonly snapshot: SnapshotFiles;
}

const filesIn = (folder: string, name: string): SnapshotFiles => ({
  state: join(folder, `${name}.state`),
  memory: join(folder, `${name}.memory`),
});

/** A guest that has booted, paused and saved; its firecracker has ended, for the next one opens the same disk. */
async function snapshotOf(t: TestContext, folder: string): Promise<SnapshotFiles> {
  const { bin, kernel, rootfs } = stock();
  // The guest writes to it.
  const disk = join(folder, 'rootfs.ext4');
  copyFileSync(rootfs, disk);
  const source = await Firecracker.start(t, bin, folder, 'fc-source');
  await source.boot({ bin, kernel, rootfs: disk }, MEMORY_MIB);
  await source.pause();
  const files = filesIn(folder, 'booted');
  await source.save(files.state, files.memory);
  await source.program.stop();
  return files;
}

async function moved(rig: Rig, destination: Firecracker, resume: boolean): Promise<MigrationSummary> {
  const migration = migrate({
    driver: new FirecrackerDriver(rig.snapshot, destination, resume),
    source: { address: rig.pair.source.address },
    destination: { address: rig.pair.destination.address },
    vmId: destination.program.name,
  });
  const summary = summaryOf((await migration.result).migration);
  assert.equal(summary.phase, 'completed');
  assert.equal(summary.tier, 'anonymous');
  assert.equal(summary.pages.present, (MEMORY_MIB << 20) / PAGE_BYTES);
  assert.ok(summary.faults.total > 0);
  return summary;
}

/** Numbers of the pages in which two memory files differ. */
function differences(a: string, b: string): readonly number[] {
  const [left, right] = [readFileSync(a), readFileSync(b)];
  assert.equal(left.length, right.length);
  const pages: number[] = [];
  for (let at = 0; at < left.length; at += PAGE_BYTES)
    if (left.compare(right, at, at + PAGE_BYTES, at, at + PAGE_BYTES) !== 0) pages.push(at / PAGE_BYTES);
  return pages;
}

/** What a guest's memory is that was loaded and never ran, as Firecracker itself saves it. */
async function savedAgain(rig: Rig, loaded: Firecracker): Promise<string> {
  const again = filesIn(rig.pair.folder, loaded.program.name);
  await loaded.save(again.state, again.memory);
  await loaded.program.stop();
  return again.memory;
}

test('a real firecracker', { skip: whyNoFirecracker() ?? false }, async (t) => {
  const pair = await startPair(t);
  const rig: Rig = { pair, bin: stock().bin, snapshot: await snapshotOf(t, pair.folder) };

  await t.test('every page of a guest that was loaded is the snapshot’s', async (t) => {
    // Firecracker itself writes to a page or two while it loads (VMGenID): which ones, a load from the file shows.
    const byFile = await Firecracker.start(t, rig.bin, pair.folder, 'fc-file');
    await byFile.load(rig.snapshot.state, 'File', rig.snapshot.memory, false);
    const own = differences(rig.snapshot.memory, await savedAgain(rig, byFile));
    const byAgent = await Firecracker.start(t, rig.bin, pair.folder, 'fc-agent');
    await moved(rig, byAgent, false);
    const wrong = differences(rig.snapshot.memory, await savedAgain(rig, byAgent));
    assert.deepEqual(wrong, own);
  });

  await t.test('a guest that runs while its pages come runs on', async (t) => {
    const destination = await Firecracker.start(t, rig.bin, pair.folder, 'fc-running');
    await moved(rig, destination, true);
    // A guest that panics ends its firecracker; what it was doing is nobody's business.
    const ended = await Promise.race([
      destination.program.exited.then((code) => `exit ${code}`),
      new Promise<string>((resolve) => setTimeout(() => resolve('runs'), RUNS_ON_MS)),
    ]);
    assert.equal(ended, 'runs', destination.console);
    assert.doesNotMatch(destination.console, /Kernel panic|Oops|BUG:|general protection/);
    const { state } = (await destination.call('GET', '/')) as { readonly state: string };
    assert.equal(state, 'Running');
  });
});

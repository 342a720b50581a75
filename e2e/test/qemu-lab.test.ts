/** The instruments of the tests with QEMU: a guest that overlooked a wrong page would make every other test here worthless. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { openEcho } from '../lib/echo.ts';
import { makeGuestNet } from '../lib/guest-net.ts';
import { makeHosts } from '../lib/hosts.ts';
import { LOOPBACK, temporaryFolder } from '../lib/migration.ts';
import { guestWorks, startQemu, type Qemu } from '../lib/qemu.ts';
import { backAtSpeedMs, longestGapMs, timelineOf, workRate, type Heartbeat } from '../lib/timeline.ts';
import { presentQemuLab } from '../qemu/install.ts';
import { runNative } from '../qemu/native.ts';

const lab = presentQemuLab();
const skip = lab.reason ?? false;
const PAGE_BYTES = 4096;

function parts() {
  if (lab.reason !== undefined) throw new Error(lab.reason);
  return lab.parts;
}

async function tinyGuest(t: TestContext): Promise<Qemu> {
  const qemu = await startQemu({
    parts: parts(),
    role: 'source',
    host: LOOPBACK,
    folder: temporaryFolder(t),
    memoryMiB: 128,
    guest: { memMiB: 8 },
  });
  t.after(() => qemu.stop());
  await guestWorks(qemu);
  return qemu;
}

/** Offsets in the RAM file of pages of the workload: they begin with their number, and no number comes twice. */
function workloadPages(path: string): Map<number, number> {
  const fd = openSync(path, 'r');
  const found = new Map<number, number>();
  const page = Buffer.alloc(PAGE_BYTES);
  try {
    for (let at = 16 << 20; readSync(fd, page, 0, PAGE_BYTES, at) === PAGE_BYTES; at += PAGE_BYTES) {
      const number = page.readBigUInt64LE(0);
      const version = page.readBigUInt64LE(8);
      if (number > 0n && number < 2048n && version > 0n && version < 100_000n && page.readBigUInt64LE(16) > 1n << 32n)
        found.set(Number(number), at);
    }
  } finally {
    closeSync(fd);
  }
  return found;
}

test(
  'a word of the guest’s memory that was changed from outside is found by the guest, and is never forgotten',
  { skip },
  async (t) => {
    const guest = await tinyGuest(t);
    assert.equal((await guest.serial.verify()).wrong, 0);
    await guest.qmp.execute('stop');
    const [path = ''] = guest.ramFiles;
    const pages = workloadPages(path);
    assert.ok(pages.size > 1500, `${pages.size} pages of the workload were found in the RAM file`);
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.from([0xff, 0, 0xff]), 0, 3, (pages.get(1000) ?? 0) + 2000);
    closeSync(fd);
    await guest.qmp.execute('cont');
    const { line } = await guest.serial.waitFor('a wrong page', (l) => l['event'] === 'wrong');
    assert.equal(line['where'], 'memory');
    assert.equal(line['number'], 1000);
    assert.equal((await guest.serial.verify()).wrong, 1);
  },
);

test(
  'QEMU’s own post-copy: nothing is wrong, and a connection from a third place goes on, with q35, VGA, a disk, a balloon, two NUMA nodes',
  { skip },
  async (t) => {
    const hosts = makeHosts();
    if (hosts.kind === 'loopback') return t.skip(hosts.reason);
    t.after(() => hosts.close());
    const net = makeGuestNet(hosts);
    t.after(() => net.close());
    const folder = temporaryFolder(t);
    const disk = join(folder, 'disk');
    writeFileSync(disk, '');
    truncateSync(disk, 32 << 20);
    const run = await runNative({
      hosts,
      folder,
      machine: {
        parts: parts(),
        ...{ memoryMiB: 256, cpus: 2, numaNodes: 2, machine: 'q35', vga: true, balloon: true, sandbox: true },
        disk: { path: disk },
        tap: net.taps.source,
        guest: { memMiB: 64, workers: 2, pagesPerS: 5000, disk: { blocksPerS: 200 }, net: net.guest },
      },
      preempt: true,
      beforeMs: 500,
      afterMs: 500,
      onWorking: async () => {
        const echo = await openEcho(net);
        t.after(() => echo.program.stop());
        await echo.answers(10);
        return () => echo.answers(10);
      },
    });
    assert.equal(run.wrong, 0);
    assert.equal(run.verifiedPages, ((64 + 4) << 20) / PAGE_BYTES);
    assert.ok((run.beats.at(-1)?.diskBlocks ?? 0) > 0);
    const numbers = run.beats.map((beat) => beat.number);
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => (numbers[0] ?? 0) + index),
      'each heartbeat once, in order, across both consoles',
    );
  },
);

const beatsAt = (...times: readonly [atMs: number, work: number][]): Heartbeat[] =>
  times.map(([atMs, work], number) => ({ atMs, number, guestMs: atMs, work, wrong: 0, diskBlocks: 0 }));

test('a heartbeat that was cut in two by the switchover is one heartbeat, when its end came', () => {
  const beats = timelineOf(
    { lines: [{ atMs: 1, line: { hb: 1, ms: 1, work: 1, wrong: 0, disk: 0 } }], partial: '{"hb":2,"ms":100,"wo' },
    { lines: [{ atMs: 130, line: { text: 'rk":7,"wrong":0,"disk":0}' } }], partial: '' },
  );
  assert.deepEqual(
    beats.map(({ atMs, number, work }) => ({ atMs, number, work })),
    [
      { atMs: 1, number: 1, work: 1 },
      { atMs: 130, number: 2, work: 7 },
    ],
  );
});

test('a heartbeat of which only the end of its line was cut off is one heartbeat', () => {
  const beat = { hb: 2, ms: 100, work: 7, wrong: 0, disk: 0 };
  const next = { atMs: 230, line: { ...beat, hb: 3 } };
  const beats = timelineOf({ lines: [], partial: `${JSON.stringify(beat)}\r` }, { lines: [next], partial: '' });
  assert.deepEqual(
    beats.map(({ number }) => number),
    [2, 3],
  );
});

test('the longest gap counts a silence that began before the span and ended in it', () => {
  const beats = beatsAt([0, 0], [100, 0], [700, 0], [800, 0], [2000, 0]);
  assert.equal(longestGapMs(beats, 150, 1500), 1200);
  assert.equal(longestGapMs(beats, 150, 750), 600);
});

test('back at speed is where the first window begins in which the guest did its share of work', () => {
  // 1 page a ms before; nothing for 500 ms after the switch at 1000; then as before.
  const beats = beatsAt(
    ...Array.from({ length: 40 }, (_, i): [number, number] => [
      i * 100,
      i <= 10 ? i * 100 : Math.max(1000, i * 100 - 500),
    ]),
  );
  const before = workRate(beats, 0, 1000);
  assert.equal(before, 1000);
  assert.equal(backAtSpeedMs(beats, 1000, before ?? 0), 500);
  assert.equal(backAtSpeedMs(beats, 1000, 2000), undefined);
});

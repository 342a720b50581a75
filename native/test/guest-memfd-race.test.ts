import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { duplicateDescriptor, UFFD_EVENT_BATCH, UFFD_EVENT_FIELDS, UFFD_FAULT_FLAG } from '../ts/index.ts';
import type { Uffd } from '../ts/index.ts';
import type { FillerData } from './page-filler.ts';
import { HANG_MS, lacking, PAGE_BYTES, pageOf } from './support.ts';
import { Toucher } from './toucher.ts';

const MISSING_AND_MINOR = 1 | 4;
const PAGES = 512;
const READERS = 3;

/** Answers one fault of a range that is registered MISSING and MINOR; what the other filler was first with is mapped. */
function resolve(uffd: Uffd, address: number, page: number, flags: number, counts: Record<string, number>): void {
  const note = (what: string): void => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  if ((flags & UFFD_FAULT_FLAG.minor) === 0) {
    const copied = uffd.copy(address, pageOf((page % 251) + 1), 0, PAGE_BYTES, true).kind;
    note(`copy ${copied}`);
    if (copied === 'done') return;
    assert.equal(copied, 'present');
  }
  const mapped = uffd.continue(address, PAGE_BYTES).kind;
  note(`continue ${mapped}`);
  if (mapped === 'present') assert.equal(uffd.wake(address, PAGE_BYTES).kind, 'done');
  else assert.equal(mapped, 'done');
}

for (const [name, kind, rows] of [
  ['memfd', 'memfd', ['MINOR on memfd', 'UFFDIO_CONTINUE']],
  ['guest_memfd', 'gmem', ['userfaultfd missing and minor on guest_memfd', 'write() to guest_memfd']],
] as const) {
  test(
    `${name}: COPY and write() fill the same pages at once, MISSING and MINOR are trapped: no reader ever sees half a page`,
    { timeout: 12 * HANG_MS, skip: lacking(...rows) },
    async (t) => {
      const toucher = Toucher.start(t);
      const memory = await toucher.map({ kind, pages: PAGES, mode: MISSING_AND_MINOR });
      assert.ok(memory.file !== null);
      const gate = new Int32Array(new SharedArrayBuffer(4));
      const workerData: FillerData = { fd: duplicateDescriptor(memory.file.fd), pages: PAGES, gate };
      const filler = new Worker(new URL('page-filler.ts', import.meta.url), { workerData });
      await once(filler, 'message');

      const counts: Record<string, number> = {};
      const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
      memory.uffd.poll(events, (count) => {
        for (let i = 0; i < count; i++) {
          const address = events[i * UFFD_EVENT_FIELDS + 1] ?? 0;
          const page = (address - memory.address) / PAGE_BYTES;
          resolve(memory.uffd, address, page, events[i * UFFD_EVENT_FIELDS + 2] ?? 0, counts);
        }
      });
      const filled = once(filler, 'message');
      Atomics.store(gate, 0, 1);
      Atomics.notify(gate, 0);
      for (let reader = 0; reader < READERS; reader++) toucher.say(`check 0 ${PAGES}`);
      for (let reader = 0; reader < READERS; reader++) assert.equal(await toucher.answer(/^checked/), 'checked 0');
      const [written] = (await filled) as [number];
      memory.uffd.stopPolling();
      t.diagnostic(`written ${written}, ${JSON.stringify(counts)}`);
      // write() to a memfd overwrites what came between its look and it.
      if (kind === 'gmem') assert.equal(written + (counts['copy done'] ?? 0), PAGES, 'each page was filled once');
    },
  );
}

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { ftruncateSync } from 'node:fs';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { duplicateDescriptor, MemoryFile, PageLedger, UserfaultBitmap } from '../ts/index.ts';
import type { ClearerData } from './bitmap-clearer.ts';
import { codeOf, descriptors, HANG_MS, lacking, PAGE_BYTES, pageOf } from './support.ts';
import { Toucher } from './toucher.ts';

/** A memfd that can be sealed, all ones. */
function ones(t: TestContext, bytes: number): MemoryFile {
  const file = MemoryFile.createMemfd('bitmap', bytes, { sealable: true });
  t.after(() => file.close());
  file.write(Buffer.alloc(bytes, 0xff), 0, bytes, 0);
  return file;
}

function adopt(t: TestContext, file: MemoryFile, pages: number): UserfaultBitmap {
  const bitmap = UserfaultBitmap.adopt(duplicateDescriptor(file.fd), pages);
  t.after(() => bitmap.close());
  return bitmap;
}

function contents(file: MemoryFile): Buffer {
  const into = Buffer.alloc(file.sizeBytes());
  file.read(into, 0, into.length, 0);
  return into;
}

test('page n of the bitmap is bit n % 8 of byte n / 8, and clearing a run clears no other', (t) => {
  const pages = 4096;
  for (const [first, count] of [
    [0, 1],
    [7, 2],
    [63, 2],
    [64, 64],
    [1, 4094],
    [130, 0],
    [4095, 1],
    [0, 4096],
  ] as const) {
    const file = ones(t, pages / 8);
    const bitmap = adopt(t, file, pages);
    bitmap.clear(first, count);
    const bytes = contents(file);
    for (let page = 0; page < pages; page++) {
      const set = ((bytes[page >> 3] ?? 0) >> (page & 7)) & 1;
      assert.equal(set, page >= first && page < first + count ? 0 : 1, `${first}+${count}: page ${page}`);
      assert.equal(bitmap.isSet(page), set === 1);
    }
    assert.equal(bitmap.countSet(), pages - count);
  }
});

test('bits beyond the last page count for nothing and stay as they are', (t) => {
  const file = ones(t, 16);
  const bitmap = adopt(t, file, 70);
  assert.equal(bitmap.pageCount, 70);
  assert.equal(bitmap.countSet(), 70);
  bitmap.clear(0, 70);
  assert.equal(bitmap.countSet(), 0);
  assert.deepEqual([...contents(file).subarray(8)], [0b1100_0000, 255, 255, 255, 255, 255, 255, 255]);
  assert.throws(() => bitmap.clear(69, 2), RangeError);
  assert.throws(() => bitmap.clear(71, 0), RangeError);
  assert.throws(() => bitmap.isSet(70), RangeError);
});

test('threads that clear neighbouring bits of one byte lose none', { timeout: 60_000 }, async (t) => {
  const pages = 1 << 18;
  const file = ones(t, pages / 8);
  const bitmap = adopt(t, file, pages);
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const step = 3;
  const workers = Array.from({ length: step }, (_, first) => {
    const workerData: ClearerData = { fd: file.fd, pages, first, step, gate };
    return new Worker(new URL('bitmap-clearer.ts', import.meta.url), { workerData });
  });
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  assert.equal(bitmap.countSet(), pages);
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  assert.equal(bitmap.countSet(), 0);
});

test('whoever sent a bitmap cannot make it shorter once it was taken', (t) => {
  const file = ones(t, 2 * PAGE_BYTES);
  const bitmap = adopt(t, file, 8 * 2 * PAGE_BYTES);
  assert.equal(
    codeOf(() => ftruncateSync(file.fd, PAGE_BYTES)),
    'EPERM',
  );
  assert.equal(bitmap.isSet(8 * 2 * PAGE_BYTES - 1), true);
});

/** Of a descriptor that is to be refused: the code; the descriptor stays the caller's. */
function refusal(file: MemoryFile, pages: number): string | undefined {
  const before = descriptors();
  const code = codeOf(() => UserfaultBitmap.adopt(file.fd, pages));
  assert.deepEqual(descriptors(), before);
  return code;
}

test('a bitmap that could end the agent with a SIGBUS, or is none, is refused by its errno', (t) => {
  const unsealable = MemoryFile.createMemfd('unsealable', PAGE_BYTES);
  t.after(() => unsealable.close());
  assert.equal(refusal(unsealable, 64), 'EPERM');

  const short = ones(t, 15);
  assert.equal(refusal(short, 65), 'EINVAL', 'a bit a page in words of 8 bytes');
  assert.equal(adopt(t, short, 64).countSet(), 64);

  const huge = MemoryFile.createMemfd('huge', 2 << 20, { hugePages2MiB: true, sealable: true });
  t.after(() => huge.close());
  assert.equal(refusal(huge, 64), 'EINVAL');

  const regular = MemoryFile.open(process.execPath, { write: false });
  t.after(() => regular.close());
  assert.equal(refusal(regular, 64), 'EINVAL');

  const sealed = ones(t, 8);
  adopt(t, sealed, 64);
  const readOnly = MemoryFile.open(`/proc/self/fd/${sealed.fd}`, { write: false });
  t.after(() => readOnly.close());
  assert.equal(refusal(readOnly, 64), 'EACCES');

  assert.equal(
    codeOf(() => UserfaultBitmap.adopt(12_345, 64)),
    'EBADF',
  );
  assert.throws(() => UserfaultBitmap.adopt(short.fd, 0), RangeError);
});

test('a bitmap keeps no descriptor, and closed it is EBADF', (t) => {
  const file = ones(t, 8);
  const before = descriptors();
  const bitmap = UserfaultBitmap.adopt(duplicateDescriptor(file.fd), 64);
  assert.deepEqual(descriptors(), before);
  bitmap.clear(3, 1);
  bitmap.close();
  bitmap.close();
  for (const call of [() => bitmap.clear(0, 1), () => bitmap.isSet(0), () => bitmap.countSet(), () => bitmap.pageCount])
    assert.equal(codeOf(call), 'EBADF');
});

test(
  'copyRequested clears the bit of a page that it installed, and of no other',
  { timeout: 2 * HANG_MS, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') },
  async (t) => {
    const memory = await Toucher.start(t).map({ pages: 8 });
    const ledger = PageLedger.create(8);
    t.after(() => ledger.close());
    const bitmap = adopt(t, ones(t, 8), 16);
    const copy = (page: number): string =>
      memory.uffd.copyRequested(memory.at(page), pageOf(1), PAGE_BYTES, ledger, page, { of: bitmap, page: page + 8 })
        .kind;
    assert.equal(copy(2), 'done', 'not requested: nothing was done');
    assert.equal(bitmap.countSet(), 16);
    ledger.fault(2);
    assert.equal(copy(2), 'done');
    assert.equal(bitmap.isSet(10), false);
    assert.equal(bitmap.countSet(), 15);
    memory.uffd.copy(memory.at(3), pageOf(2), 0, PAGE_BYTES, true);
    ledger.fault(3);
    assert.equal(copy(3), 'present');
    assert.equal(bitmap.isSet(11), true, 'whether what is there is right is for the ledger to say');
    assert.throws(
      () => memory.uffd.copyRequested(memory.at(2), pageOf(1), PAGE_BYTES, ledger, 2, { of: bitmap, page: 16 }),
      RangeError,
    );
    bitmap.close();
    ledger.fault(4);
    assert.equal(
      codeOf(() => copy(4)),
      'EBADF',
    );
  },
);

test('a memory file is writable where write() would fill it', (t) => {
  const memfd = MemoryFile.createMemfd('memory', PAGE_BYTES);
  t.after(() => memfd.close());
  assert.equal(memfd.writable(), true);
  assert.deepEqual(Array.from(memfd.dataRuns(0, PAGE_BYTES)), [], 'and finding that out touched nothing');
  const readOnly = MemoryFile.open(`/proc/self/fd/${memfd.fd}`, { write: false });
  t.after(() => readOnly.close());
  assert.equal(readOnly.writable(), false);
  const huge = MemoryFile.createMemfd('huge', 2 << 20, { hugePages2MiB: true });
  t.after(() => huge.close());
  assert.equal(huge.writable(), false);
});

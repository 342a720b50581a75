import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, openSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { MemoryFile } from '../ts/index.ts';
import { codeOf, HANG_MS, lacking, PAGE_BYTES, pageOf, temporaryFolder } from './support.ts';

const MIB = 1024 * 1024;

function memfd(t: TestContext, pages: number): MemoryFile {
  const file = MemoryFile.createMemfd('test', pages * PAGE_BYTES);
  t.after(() => file.close());
  return file;
}

function readAll(file: MemoryFile): Buffer {
  const bytes = Buffer.alloc(file.sizeBytes());
  assert.deepEqual(file.read(bytes, 0, bytes.length, 0), { kind: 'done', bytes: bytes.length });
  return bytes;
}

/** What findHoles should say, from the pages of 4 KiB that were written alone. */
function naiveHoles(written: ReadonlySet<number>, offset: number, length: number, pageSize: number): number[] {
  const runs: number[] = [];
  for (let at = offset; at < offset + length; at += pageSize) {
    const pages = Array.from({ length: pageSize / PAGE_BYTES }, (_, i) => at / PAGE_BYTES + i);
    if (pages.some((page) => written.has(page))) continue;
    const last = runs.length - 1;
    if (runs.length > 0 && (runs[last - 1] ?? 0) + (runs[last] ?? 0) === at) runs[last] = (runs[last] ?? 0) + pageSize;
    else runs.push(at, pageSize);
  }
  return runs;
}

test('what is written is read; the rest are holes that read as zeros', (t) => {
  const file = memfd(t, 16);
  assert.deepEqual(file.write(pageOf(7), 0, PAGE_BYTES, 3 * PAGE_BYTES), { kind: 'done', bytes: PAGE_BYTES });
  assert.deepEqual(Array.from(file.dataRuns(0, 16 * PAGE_BYTES)), [3 * PAGE_BYTES, PAGE_BYTES]);
  const bytes = readAll(file);
  assert.ok(bytes.subarray(3 * PAGE_BYTES, 4 * PAGE_BYTES).equals(pageOf(7)));
  assert.ok(bytes.subarray(0, 3 * PAGE_BYTES).every((byte) => byte === 0));
});

test('dataRuns are cut to the range that was asked for', (t) => {
  const file = memfd(t, 16);
  file.write(Buffer.alloc(4 * PAGE_BYTES, 1), 0, 4 * PAGE_BYTES, 2 * PAGE_BYTES);
  file.write(pageOf(1), 0, PAGE_BYTES, 9 * PAGE_BYTES);
  const runs = (first: number, count: number): number[] =>
    Array.from(file.dataRuns(first * PAGE_BYTES, count * PAGE_BYTES), (bytes) => bytes / PAGE_BYTES);
  assert.deepEqual(runs(0, 16), [2, 4, 9, 1]);
  assert.deepEqual(runs(3, 2), [3, 2]);
  assert.deepEqual(runs(6, 3), []);
  assert.deepEqual(runs(5, 5), [5, 1, 9, 1]);
  assert.deepEqual(runs(16, 0), []);
});

test('writeRuns puts every piece in its place, contiguous or not, more of them than one call takes', (t) => {
  const pages = 300;
  const file = memfd(t, pages);
  const source = randomBytes(pages * PAGE_BYTES);
  const order = Array.from({ length: pages }, (_, i) => i).filter((page) => page % 97 !== 5);
  const runs = Float64Array.from(order.flatMap((page) => [page * PAGE_BYTES, PAGE_BYTES, page * PAGE_BYTES]));
  assert.deepEqual(file.writeRuns(source, runs), { kind: 'done', bytes: order.length * PAGE_BYTES });
  const expected = Buffer.from(source);
  for (let page = 5; page < pages; page += 97) expected.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  assert.ok(readAll(file).equals(expected));
  // Backwards, and with an empty piece between.
  const back = Float64Array.from([0, PAGE_BYTES, PAGE_BYTES, 0, 0, 0, PAGE_BYTES, PAGE_BYTES, 0]);
  assert.deepEqual(file.writeRuns(source, back), { kind: 'done', bytes: 2 * PAGE_BYTES });
  const swapped = readAll(file);
  assert.ok(swapped.subarray(0, PAGE_BYTES).equals(source.subarray(PAGE_BYTES, 2 * PAGE_BYTES)));
  assert.deepEqual(file.writeRuns(source, new Float64Array(0)), { kind: 'done', bytes: 0 });
});

test('punch makes a hole again', (t) => {
  const file = memfd(t, 8);
  file.write(Buffer.alloc(8 * PAGE_BYTES, 1), 0, 8 * PAGE_BYTES, 0);
  assert.deepEqual(file.punch(2 * PAGE_BYTES, 3 * PAGE_BYTES), { kind: 'done', bytes: 3 * PAGE_BYTES });
  assert.deepEqual(Array.from(file.dataRuns(0, 8 * PAGE_BYTES)), [0, 2 * PAGE_BYTES, 5 * PAGE_BYTES, 3 * PAGE_BYTES]);
});

test('memory does not grow: a range past the end is refused before anything is written', (t) => {
  const file = memfd(t, 4);
  const end = 4 * PAGE_BYTES;
  for (const call of [
    () => file.write(pageOf(1), 0, PAGE_BYTES, end),
    () => file.write(pageOf(1), 0, PAGE_BYTES, end - 1),
    () => file.writeRuns(pageOf(1), Float64Array.of(0, 1, 0, 0, 1, end)),
    () => file.writeRuns(pageOf(1), Float64Array.of(0, PAGE_BYTES + 1, 0)),
    () => file.store(pageOf(1), 0, PAGE_BYTES, end),
    () => file.punch(end, PAGE_BYTES),
    () => file.dataRuns(0, end + 1),
  ]) {
    assert.throws(call, { name: 'RangeError', message: /are not within the \d+ bytes of (the memory file|source)$/ });
  }
  assert.equal(file.sizeBytes(), end);
  assert.deepEqual(Array.from(file.dataRuns(0, end)), []);
});

test('reading past the end is absent, and says how much there was', (t) => {
  const file = memfd(t, 2);
  const into = Buffer.alloc(3 * PAGE_BYTES, 0xff);
  assert.deepEqual(file.read(into, 0, into.length, 0), { kind: 'absent', bytes: 2 * PAGE_BYTES });
});

test('store and load copy through a mapping; a file that became shorter is an error and no SIGBUS', (t) => {
  const path = join(temporaryFolder(t), 'memory');
  writeFileSync(path, Buffer.alloc(8 * PAGE_BYTES));
  const file = MemoryFile.open(path, { write: true });
  t.after(() => file.close());
  assert.deepEqual(file.store(pageOf(4), 0, PAGE_BYTES, 6 * PAGE_BYTES), { kind: 'done', bytes: PAGE_BYTES });
  const into = pageOf(0);
  assert.deepEqual(file.load(into, 0, PAGE_BYTES, 6 * PAGE_BYTES), { kind: 'done', bytes: PAGE_BYTES });
  assert.ok(into.equals(pageOf(4)));
  truncateSync(path, 2 * PAGE_BYTES);
  assert.throws(() => file.store(pageOf(4), 0, PAGE_BYTES, 6 * PAGE_BYTES), RangeError);
  assert.throws(() => file.load(into, 0, PAGE_BYTES, 6 * PAGE_BYTES), RangeError);
  assert.deepEqual(file.store(pageOf(5), 0, PAGE_BYTES, PAGE_BYTES), { kind: 'done', bytes: PAGE_BYTES });
});

test('a file that was opened for reading refuses writes, with the reason', (t) => {
  const path = join(temporaryFolder(t), 'memory');
  writeFileSync(path, Buffer.alloc(2 * PAGE_BYTES, 3));
  const file = MemoryFile.open(path, { write: false });
  t.after(() => file.close());
  assert.equal(file.kind(), 'regular');
  assert.deepEqual(file.write(pageOf(1), 0, PAGE_BYTES, 0), { kind: 'refused', bytes: 0, errno: 'EBADF' });
  assert.notEqual(file.store(pageOf(1), 0, PAGE_BYTES, 0).kind, 'done');
  const into = pageOf(0);
  assert.deepEqual(file.load(into, 0, PAGE_BYTES, 0), { kind: 'done', bytes: PAGE_BYTES });
  assert.ok(into.equals(pageOf(3)));
});

test('opening says what is wrong', (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'folder'));
  assert.throws(() => MemoryFile.open(join(folder, 'none'), { write: false }), {
    name: 'NativeError',
    code: 'ENOENT',
    message: /none/,
  });
  assert.throws(() => MemoryFile.open(join(folder, 'folder'), { write: false }), {
    code: 'EINVAL',
    message: /not a file that holds memory/,
  });
  assert.equal(
    codeOf(() => MemoryFile.adopt(99_999)),
    'EBADF',
  );
  assert.throws(() => MemoryFile.createMemfd('x', -1), RangeError);
});

test('the kind of a file is told by its file system', (t) => {
  assert.equal(memfd(t, 1).kind(), 'memfd-or-shmem');
  const pipe = MemoryFile.adopt(openSync('/dev/null', 'r'));
  t.after(() => pipe.close());
  assert.equal(pipe.kind(), 'other');
});

test('huge pages that the machine does not have are refused when they are stored, not with a SIGBUS', (t) => {
  const file = MemoryFile.createMemfd('huge', 2 * MIB, { hugePages2MiB: true });
  t.after(() => file.close());
  assert.equal(file.kind(), 'hugetlbfs');
  assert.deepEqual(file.write(pageOf(1), 0, PAGE_BYTES, 0), { kind: 'refused', bytes: 0, errno: 'EINVAL' });
  const stored = file.store(pageOf(1), 0, PAGE_BYTES, 0).kind;
  assert.equal(stored, lacking('hugetlb 2 MiB') === false ? 'done' : 'no-memory');
});

for (const pageSize of [PAGE_BYTES, 16 * PAGE_BYTES]) {
  test(
    `holes are what nobody wrote, and at a later look what nobody has written since (${pageSize} bytes a page)`,
    { timeout: HANG_MS },
    async (t) => {
      const pages = 1200;
      const file = memfd(t, pages);
      const written = new Set<number>();
      const write = (page: number, value: number): void => {
        file.write(pageOf(value), 0, PAGE_BYTES, page * PAGE_BYTES);
        written.add(page);
      };
      for (let page = 0; page < pages; page++) if ((page * 7919) % 41 < 3) write(page, page % 2);
      const ranges = [
        [0, 1200 * PAGE_BYTES],
        [16 * PAGE_BYTES, 16 * PAGE_BYTES],
        [32 * PAGE_BYTES, 64 * PAGE_BYTES],
      ] as const;
      const found: Float64Array[] = [];
      for (const [offset, length] of ranges) {
        const holes = await file.findHoles(offset, length, pageSize);
        assert.deepEqual(Array.from(holes), naiveHoles(written, offset, length, pageSize));
        assert.deepEqual(file.stillHoles(holes, pageSize), holes);
        found.push(holes);
      }
      assert.equal(file.dataRuns(0, pages * PAGE_BYTES).length / 2, written.size, 'no hole was filled by looking');
      for (let page = 5; page < pages; page += 97) write(page, 1);
      for (const [i, [offset, length]] of ranges.entries()) {
        const still = file.stillHoles(found[i] ?? assert.fail(), pageSize);
        assert.deepEqual(Array.from(still), naiveHoles(written, offset, length, pageSize));
      }
    },
  );
}

test('a hole that was cut up beyond measure may be told as less, never as more', { timeout: HANG_MS }, async (t) => {
  const pages = 4096;
  const file = memfd(t, pages);
  const holes = await file.findHoles(0, pages * PAGE_BYTES, PAGE_BYTES);
  assert.deepEqual(Array.from(holes), [0, pages * PAGE_BYTES]);
  for (let page = 1; page < pages; page += 2) file.write(pageOf(1), 0, PAGE_BYTES, page * PAGE_BYTES);
  const still = file.stillHoles(holes, PAGE_BYTES);
  assert.ok(still.length > 0 && still.length / 2 < pages / 2, `${String(still.length / 2)} holes`);
  for (let i = 0; i < still.length; i += 2)
    assert.deepEqual([((still[i] ?? 0) / PAGE_BYTES) % 2, still[i + 1]], [0, PAGE_BYTES]);
});

test('a search goes on when its file is closed', { timeout: HANG_MS }, async () => {
  const file = MemoryFile.createMemfd('test', 64 * MIB);
  const search = file.findHoles(0, 64 * MIB, PAGE_BYTES);
  file.close();
  assert.deepEqual(Array.from(await search), [0, 64 * MIB]);
});

test('the end of a file that became shorter is no hole: data runs and holes refuse it, read is absent', async (t) => {
  const path = join(temporaryFolder(t), 'memory');
  writeFileSync(path, Buffer.alloc(4 * PAGE_BYTES, 1));
  const short = MemoryFile.open(path, { write: false });
  t.after(() => short.close());
  truncateSync(path, PAGE_BYTES);
  await assert.rejects(short.findHoles(0, 4 * PAGE_BYTES, PAGE_BYTES), RangeError);
  assert.throws(() => short.stillHoles(Float64Array.of(2 * PAGE_BYTES, PAGE_BYTES), PAGE_BYTES), {
    code: 'EFAULT',
    message: /became shorter/,
  });
  assert.throws(() => short.dataRuns(0, 4 * PAGE_BYTES), RangeError);
  assert.deepEqual(short.read(Buffer.alloc(2 * PAGE_BYTES), 0, 2 * PAGE_BYTES, 0), {
    kind: 'absent',
    bytes: PAGE_BYTES,
  });
});

test('a range that is not whole pages, and holes that nobody can have found, are refused', async (t) => {
  const file = memfd(t, 4);
  await assert.rejects(file.findHoles(0, PAGE_BYTES + 1, PAGE_BYTES), RangeError);
  await assert.rejects(file.findHoles(1, PAGE_BYTES, PAGE_BYTES), RangeError);
  await assert.rejects(file.findHoles(0, PAGE_BYTES, 0), RangeError);
  for (const pairs of [
    [0],
    [1, PAGE_BYTES],
    [0, 1],
    [0, 0],
    [0, -PAGE_BYTES],
    [NaN, PAGE_BYTES],
    [PAGE_BYTES, PAGE_BYTES, 0, PAGE_BYTES],
  ])
    assert.throws(() => file.stillHoles(Float64Array.from(pairs), PAGE_BYTES), RangeError, pairs.join());
  assert.deepEqual(Array.from(file.stillHoles(new Float64Array(0), PAGE_BYTES)), []);
});

test('a duplicate is the same file and outlives the first', (t) => {
  const first = MemoryFile.createMemfd('test', PAGE_BYTES);
  const second = first.duplicate();
  t.after(() => second.close());
  first.write(pageOf(9), 0, PAGE_BYTES, 0);
  first.close();
  first.close();
  assert.equal(first.fd, -1);
  assert.throws(() => first.read(pageOf(0), 0, 1, 0), { name: 'NativeError', code: 'EBADF' });
  assert.ok(readAll(second).equals(pageOf(9)));
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GUEST_MEMFD_FLAG, MemoryFile, probe } from '../ts/index.ts';
import { codeOf, lacking, PAGE_BYTES, pageOf } from './support.ts';

const PAGES = 16;
const flags = GUEST_MEMFD_FLAG.mmap | GUEST_MEMFD_FLAG.initShared;
const options = { skip: lacking('guest_memfd mmap') };

test(
  'write() to a guest_memfd made without its flag is refused with ESPIPE, as on a mainline kernel; store() fills it all the same',
  options,
  (t) => {
    const memory = MemoryFile.createGuestMemfd(PAGES * PAGE_BYTES, flags);
    t.after(() => memory.close());
    assert.equal(memory.kind(), 'guest_memfd');
    assert.equal(memory.sizeBytes(), PAGES * PAGE_BYTES);
    assert.equal(memory.writable(), false);
    assert.deepEqual(memory.write(pageOf(1), 0, PAGE_BYTES, 0), { kind: 'refused', bytes: 0, errno: 'ESPIPE' });
    assert.deepEqual(memory.store(pageOf(2), 0, PAGE_BYTES, 3 * PAGE_BYTES), { kind: 'done', bytes: PAGE_BYTES });
    const into = pageOf(0);
    assert.deepEqual(memory.load(into, 0, PAGE_BYTES, 3 * PAGE_BYTES), { kind: 'done', bytes: PAGE_BYTES });
    assert.ok(into.equals(pageOf(2)));
  },
);

test('a guest_memfd cannot be read: and nothing of it is called a hole', options, async (t) => {
  const memory = MemoryFile.createGuestMemfd(PAGES * PAGE_BYTES, flags);
  t.after(() => memory.close());
  assert.deepEqual(memory.read(pageOf(0), 0, PAGE_BYTES, 0), { kind: 'refused', bytes: 0, errno: 'ESPIPE' });
  assert.deepEqual(Array.from(await memory.findHoles(0, PAGES * PAGE_BYTES, PAGE_BYTES)), []);
  assert.deepEqual(Array.from(memory.dataRuns(0, PAGES * PAGE_BYTES)), [0, PAGES * PAGE_BYTES]);
});

test('punch empties a page of a guest_memfd', options, (t) => {
  const memory = MemoryFile.createGuestMemfd(PAGES * PAGE_BYTES, flags);
  t.after(() => memory.close());
  memory.store(pageOf(2), 0, PAGE_BYTES, 0);
  assert.deepEqual(memory.punch(0, PAGE_BYTES), { kind: 'done', bytes: PAGE_BYTES });
  const into = pageOf(9);
  memory.load(into, 0, PAGE_BYTES, 0);
  assert.ok(into.equals(pageOf(0)));
});

test('without the mmap flag a guest_memfd cannot be stored to', options, (t) => {
  const memory = MemoryFile.createGuestMemfd(PAGES * PAGE_BYTES, 0);
  t.after(() => memory.close());
  assert.equal(memory.store(pageOf(2), 0, PAGE_BYTES, 0).kind, 'refused');
});

test('a duplicate of a guest_memfd keeps its memory', options, (t) => {
  const first = MemoryFile.createGuestMemfd(PAGES * PAGE_BYTES, flags);
  first.store(pageOf(8), 0, PAGE_BYTES, 0);
  const second = first.duplicate();
  t.after(() => second.close());
  first.close();
  const into = pageOf(0);
  assert.deepEqual(second.load(into, 0, PAGE_BYTES, 0), { kind: 'done', bytes: PAGE_BYTES });
  assert.ok(into.equals(pageOf(8)));
});

test(
  'flags that the kernel does not know and sizes that are no pages are refused with the call that did',
  options,
  () => {
    assert.throws(() => MemoryFile.createGuestMemfd(PAGE_BYTES, 1 << 30), {
      code: 'EINVAL',
      syscall: 'KVM_CREATE_GUEST_MEMFD',
    });
    assert.equal(
      codeOf(() => MemoryFile.createGuestMemfd(PAGE_BYTES + 1, flags)),
      'EINVAL',
    );
  },
);

test('a userfaultfd traps a guest_memfd on a patched kernel alone: EINVAL on a mainline one', options, () => {
  const row = probe().find((row) => row.name === 'userfaultfd on guest_memfd');
  assert.match(row?.detail ?? '', row?.available === true ? /: done$/ : /guest_memfd mapping: EINVAL$/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { UFFD_EVENT, UFFD_EVENT_BATCH, UFFD_EVENT_FIELDS, UFFD_FAULT_FLAG } from '../ts/index.ts';
import type { MemoryFile, Outcome } from '../ts/index.ts';
import { HANG_MS, lacking, PAGE_BYTES, pageOf } from './support.ts';
import { Toucher } from './toucher.ts';
import type { Mapped } from './toucher.ts';

const PAGES = 16;
const MISSING = 1;
const MINOR = 4;
const DONE: Outcome = { kind: 'done', bytes: PAGE_BYTES };
const PRESENT: Outcome = { kind: 'present', bytes: 0 };
const options = {
  timeout: 6 * HANG_MS,
  skip: lacking('userfaultfd missing and minor on guest_memfd', 'write() to guest_memfd'),
};

interface Guest {
  readonly toucher: Toucher;
  readonly memory: Mapped;
  readonly file: MemoryFile;
}

async function guest(t: TestContext, mode: number): Promise<Guest> {
  const toucher = Toucher.start(t);
  const memory = await toucher.map({ kind: 'gmem', pages: PAGES, mode });
  assert.ok(memory.file !== null);
  return { toucher, memory, file: memory.file };
}

/** The address and the flags of the next fault. */
async function nextFault(memory: Mapped): Promise<readonly [address: number, flags: number]> {
  const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
  const { promise, resolve } = Promise.withResolvers<readonly [number, number]>();
  memory.uffd.poll(events, (count) => {
    memory.uffd.stopPolling();
    assert.equal(count, 1);
    assert.equal(events[0], UFFD_EVENT.pagefault);
    resolve([events[1] ?? 0, events[2] ?? 0]);
  });
  return await promise;
}

function hasNoFault(memory: Mapped): boolean {
  return memory.uffd.drain(new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS)) === 0;
}

function write(file: MemoryFile, page: number, byte: number): Outcome {
  return file.write(pageOf(byte), 0, PAGE_BYTES, page * PAGE_BYTES);
}

/** Through a mapping that nobody watches: only of a page that is there. */
function loaded(file: MemoryFile, page: number): Buffer {
  const into = Buffer.alloc(PAGE_BYTES);
  assert.deepEqual(file.load(into, 0, PAGE_BYTES, page * PAGE_BYTES), DONE);
  return into;
}

test(
  'guest_memfd: a missing page that is touched is an event, and COPY resumes the thread with its bytes',
  options,
  async (t) => {
    const { toucher, memory, file } = await guest(t, MISSING | MINOR);
    toucher.say('touch 3');
    assert.deepEqual(await nextFault(memory), [memory.at(3), 0]);
    assert.deepEqual(memory.uffd.copy(memory.at(3), pageOf(0x5a), 0, PAGE_BYTES, true), DONE);
    assert.match(await toucher.answer(/^touched 3/), /^touched 3 90 /);
    assert.ok(hasNoFault(memory), 'COPY fills the page cache and the page table: no minor fault follows');
    assert.ok(loaded(file, 3).equals(pageOf(0x5a)));
  },
);

test('guest_memfd: a write fault carries the write flag, and ZEROPAGE resumes it', options, async (t) => {
  const { toucher, memory, file } = await guest(t, MISSING);
  toucher.say('write 1 7');
  assert.deepEqual(await nextFault(memory), [memory.at(1), UFFD_FAULT_FLAG.write]);
  assert.deepEqual(memory.uffd.zeropage(memory.at(1), PAGE_BYTES), DONE);
  await toucher.answer(/^touched 1 7 /);
  assert.equal(loaded(file, 1)[1], 0);
});

test(
  'guest_memfd: a page that write() filled is a minor fault where MINOR is registered, and CONTINUE maps it',
  options,
  async (t) => {
    const { toucher, memory, file } = await guest(t, MISSING | MINOR);
    assert.deepEqual(write(file, 2, 0x21), DONE);
    toucher.say('touch 2');
    assert.deepEqual(await nextFault(memory), [memory.at(2), UFFD_FAULT_FLAG.minor]);
    assert.deepEqual(memory.uffd.continue(memory.at(2), PAGE_BYTES), DONE);
    await toucher.answer(/^touched 2 33 /);
    assert.deepEqual(memory.uffd.continue(memory.at(2), PAGE_BYTES), PRESENT, 'EEXIST: it is mapped already');
  },
);

test(
  'guest_memfd: a page that write() filled needs nothing more where MISSING alone is registered',
  options,
  async (t) => {
    const { toucher, memory, file } = await guest(t, MISSING);
    assert.deepEqual(write(file, 2, 0x21), DONE);
    await toucher.ask('touch 2', /^touched 2 33 /);
    assert.ok(hasNoFault(memory));
  },
);

test(
  'guest_memfd: with MINOR alone an absent page is no event but a zero: MISSING is what sees a miss',
  options,
  async (t) => {
    const { toucher, memory } = await guest(t, MINOR);
    await toucher.ask('touch 5', /^touched 5 0 /);
    assert.ok(hasNoFault(memory));
  },
);

test('guest_memfd: CONTINUE of a page that is not in the cache is EFAULT', options, async (t) => {
  const { memory } = await guest(t, MISSING | MINOR);
  assert.equal(memory.uffd.continue(memory.at(4), PAGE_BYTES).kind, 'absent');
});

test(
  'guest_memfd: COPY and ZEROPAGE of a page that is there are EEXIST and wake nobody; WAKE does',
  options,
  async (t) => {
    const { toucher, memory, file } = await guest(t, MISSING);
    toucher.say('touch 6');
    await nextFault(memory);
    assert.deepEqual(write(file, 6, 0x66), DONE);
    assert.deepEqual(memory.uffd.copy(memory.at(6), pageOf(1), 0, PAGE_BYTES, true), PRESENT);
    assert.deepEqual(memory.uffd.zeropage(memory.at(6), PAGE_BYTES), PRESENT);
    assert.equal(toucher.heard(/^touched 6/), false);
    assert.deepEqual(memory.uffd.wake(memory.at(6), PAGE_BYTES), DONE);
    await toucher.answer(/^touched 6 102 /);
  },
);

test(
  'guest_memfd: COPY over missing, present, missing stops at the page that is there and says how far it came',
  options,
  async (t) => {
    const { memory, file } = await guest(t, MISSING);
    assert.deepEqual(write(file, 9, 9), DONE);
    const source = Buffer.alloc(3 * PAGE_BYTES, 1);
    assert.deepEqual(memory.uffd.copy(memory.at(8), source, 0, source.length, true), {
      kind: 'again',
      bytes: PAGE_BYTES,
    });
  },
);

test('guest_memfd: write() of a page that is there is EEXIST and leaves it as it is', options, async (t) => {
  const { memory, file } = await guest(t, MISSING);
  assert.equal(file.writable(), true);
  assert.deepEqual(write(file, 2, 1), DONE);
  assert.deepEqual(write(file, 2, 2), PRESENT);
  assert.ok(loaded(file, 2).equals(pageOf(1)));
  assert.deepEqual(memory.uffd.copy(memory.at(3), pageOf(3), 0, PAGE_BYTES, true), DONE);
  assert.deepEqual(write(file, 3, 2), PRESENT, 'nor what COPY filled');
  assert.ok(loaded(file, 3).equals(pageOf(3)));
});

test('guest_memfd: a write() that meets a page that is there stops short of it', options, async (t) => {
  const { file } = await guest(t, MISSING);
  assert.deepEqual(write(file, 4, 4), DONE);
  const source = Buffer.alloc(4 * PAGE_BYTES, 1);
  assert.deepEqual(file.write(source, 0, source.length, 2 * PAGE_BYTES), { kind: 'present', bytes: 2 * PAGE_BYTES });
  const runs = Float64Array.of(
    0,
    PAGE_BYTES,
    8 * PAGE_BYTES,
    PAGE_BYTES,
    PAGE_BYTES,
    4 * PAGE_BYTES,
    0,
    PAGE_BYTES,
    12 * PAGE_BYTES,
  );
  assert.deepEqual(file.writeRuns(source, runs), { kind: 'present', bytes: PAGE_BYTES }, 'counted over all runs');
  assert.deepEqual(
    [3, 4, 8].map((page) => loaded(file, page)[0]),
    [1, 4, 1],
  );
  assert.deepEqual(write(file, 12, 12), DONE, 'what came after it was left alone');
});

test('guest_memfd: half a page cannot be written', options, async (t) => {
  const { file } = await guest(t, MISSING);
  for (const [length, offset] of [
    [PAGE_BYTES / 2, 0],
    [PAGE_BYTES, PAGE_BYTES / 2],
  ] as const)
    assert.deepEqual(file.write(pageOf(1), 0, length, offset), { kind: 'refused', bytes: 0, errno: 'EINVAL' });
});

test('guest_memfd: punch makes a page missing again, and no event says so', options, async (t) => {
  const { toucher, memory, file } = await guest(t, MISSING | MINOR);
  assert.deepEqual(memory.uffd.copy(memory.at(7), pageOf(1), 0, PAGE_BYTES, true), DONE);
  await toucher.ask('touch 7', /^touched 7 1 /);
  assert.deepEqual(file.punch(7 * PAGE_BYTES, PAGE_BYTES), DONE);
  assert.ok(hasNoFault(memory));
  toucher.say('touch 7');
  assert.deepEqual(await nextFault(memory), [memory.at(7), 0]);
  assert.deepEqual(write(file, 7, 2), DONE);
  assert.deepEqual(memory.uffd.wake(memory.at(7), PAGE_BYTES), DONE);
  assert.deepEqual(await nextFault(memory), [memory.at(7), UFFD_FAULT_FLAG.minor], 'woken, it finds it in the cache');
  assert.deepEqual(memory.uffd.continue(memory.at(7), PAGE_BYTES), DONE);
  await toucher.answer(/^touched 7 2 /);
});

test(
  'guest_memfd: a page that fallocate() made is there but empty: write() still fills it, and CONTINUE makes it zeros',
  options,
  async (t) => {
    const { toucher, memory, file } = await guest(t, MISSING | MINOR);
    for (const page of [10, 11]) await toucher.ask(`allocate ${page}`, /^allocated 0/);
    assert.deepEqual(write(file, 10, 5), DONE);
    assert.ok(loaded(file, 10).equals(pageOf(5)));
    toucher.say('touch 11');
    assert.deepEqual(await nextFault(memory), [memory.at(11), UFFD_FAULT_FLAG.minor]);
    assert.deepEqual(memory.uffd.continue(memory.at(11), PAGE_BYTES), DONE);
    await toucher.answer(/^touched 11 0 /);
  },
);

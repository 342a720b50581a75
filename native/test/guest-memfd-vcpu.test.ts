import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { PageLedger } from '../ts/index.ts';
import type { MemoryFile, Outcome, Uffd, UserfaultBitmap } from '../ts/index.ts';
import { HANG_MS, lacking, PAGE_BYTES, pageOf } from './support.ts';
import { Toucher } from './toucher.ts';
import type { Mapped } from './toucher.ts';

const PAGES = 130;
const MISSING = 1;
const MINOR = 4;
const DONE: Outcome = { kind: 'done', bytes: PAGE_BYTES };
const timeout = 6 * HANG_MS;
const onGuestMemfd = {
  timeout,
  skip: lacking(
    'KVM userfault on guest_memfd',
    'userfaultfd missing and minor on guest_memfd',
    'write() to guest_memfd',
  ),
};
const onMemfd = { timeout, skip: lacking('KVM userfault on memfd', 'MISSING on memfd') };

interface Guest {
  readonly toucher: Toucher;
  readonly memory: Mapped;
  readonly file: MemoryFile;
  readonly uffd: Uffd;
  readonly bitmap: UserfaultBitmap;
}

async function guest(t: TestContext, kind: 'gmem' | 'memfd', mode: number): Promise<Guest> {
  const toucher = Toucher.start(t);
  const memory = await toucher.map({ kind, pages: PAGES, mode });
  assert.ok(memory.file !== null);
  const bitmap = await toucher.machine(PAGES);
  assert.equal(bitmap.countSet(), PAGES);
  return { toucher, memory, file: memory.file, uffd: memory.uffd, bitmap };
}

function write(file: MemoryFile, page: number, byte: number): Outcome {
  return file.write(pageOf(byte), 0, PAGE_BYTES, page * PAGE_BYTES);
}

for (const [name, kind, options] of [
  ['guest_memfd', 'gmem', onGuestMemfd],
  ['memfd', 'memfd', onMemfd],
] as const) {
  test(
    `${name}: a vCPU that reads a page whose bit is set exits, and reads what write() put there once it is clear`,
    options,
    async (t) => {
      const { toucher, file, bitmap } = await guest(t, kind, MISSING);
      // The first and the last of bytes and words of the bitmap, and the last page.
      for (const page of [0, 7, 8, 63, 64, 129]) {
        assert.equal(await toucher.vcpu(page), `exited ${page}`);
        assert.deepEqual(write(file, page, page + 1), DONE);
        bitmap.clear(page, 1);
        assert.equal(await toucher.vcpu(page), `read ${page} ${page + 1}`);
      }
      assert.equal(bitmap.countSet(), PAGES - 6);
    },
  );

  test(`${name}: a page that was written but whose bit is still set still exits`, options, async (t) => {
    const { toucher, file, bitmap } = await guest(t, kind, MISSING);
    assert.deepEqual(write(file, 5, 55), DONE);
    assert.equal(await toucher.vcpu(5), 'exited 5');
    assert.equal(await toucher.vcpu(5), 'exited 5');
    bitmap.clear(5, 1);
    assert.equal(await toucher.vcpu(5), 'read 5 55');
  });

  test(`${name}: a page that COPY filled needs its bit cleared and nothing else`, options, async (t) => {
    const { toucher, memory, uffd, bitmap } = await guest(t, kind, MISSING);
    const ledger = PageLedger.create(PAGES);
    t.after(() => ledger.close());
    assert.equal(await toucher.vcpu(9), 'exited 9');
    ledger.fault(9);
    const copied = uffd.copyRequested(memory.at(9), pageOf(99), PAGE_BYTES, ledger, 9, { of: bitmap, page: 9 });
    assert.deepEqual(copied, DONE);
    assert.equal(await toucher.vcpu(9), 'read 9 99');
    await toucher.ask('touch 9', /^touched 9 99 /);
  });
}

test(
  'guest_memfd: an absent page exits though its bit is clear, and is zeros after fallocate',
  onGuestMemfd,
  async (t) => {
    const { toucher, bitmap } = await guest(t, 'gmem', MISSING);
    bitmap.clear(0, PAGES);
    assert.equal(await toucher.vcpu(6), 'exited 6');
    await toucher.ask('allocate 6', /^allocated 0/);
    assert.equal(await toucher.vcpu(6), 'read 6 0');
  },
);

test('guest_memfd: a page that was punched exits though its bit is clear', onGuestMemfd, async (t) => {
  const { toucher, file, bitmap } = await guest(t, 'gmem', MISSING);
  assert.deepEqual(write(file, 3, 3), DONE);
  bitmap.clear(3, 1);
  assert.equal(await toucher.vcpu(3), 'read 3 3');
  assert.deepEqual(file.punch(3 * PAGE_BYTES, PAGE_BYTES), DONE);
  assert.equal(await toucher.vcpu(3), 'exited 3');
});

test(
  'guest_memfd: a vCPU needs no CONTINUE: what write() filled is a minor fault for threads alone',
  onGuestMemfd,
  async (t) => {
    const { toucher, memory, file, uffd, bitmap } = await guest(t, 'gmem', MISSING | MINOR);
    assert.deepEqual(write(file, 4, 44), DONE);
    bitmap.clear(4, 1);
    assert.equal(await toucher.vcpu(4), 'read 4 44');
    assert.deepEqual(uffd.continue(memory.at(4), PAGE_BYTES), DONE, 'the page table has it not yet');
  },
);

test(
  'memfd: with the bitmap alone an absent page whose bit is clear is a zero: hence the userfaultfd',
  onMemfd,
  async (t) => {
    const { toucher, bitmap } = await guest(t, 'memfd', 0);
    bitmap.clear(6, 1);
    assert.equal(await toucher.vcpu(6), 'read 6 0');
  },
);

test(
  'memfd: under a userfaultfd an absent page whose bit is clear is no zero: a uffd for user mode alone fails the vCPU',
  onMemfd,
  async (t) => {
    const { toucher, file, bitmap } = await guest(t, 'memfd', MISSING);
    bitmap.clear(6, 1);
    // EFAULT, not by the bitmap. One that sees faults of the kernel would get an event instead.
    assert.match(await toucher.vcpu(6), /^failed 6 14 /);
    assert.deepEqual(write(file, 6, 66), DONE);
    assert.equal(await toucher.vcpu(6), 'read 6 66');
  },
);

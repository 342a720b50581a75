import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import {
  PageLedger,
  Uffd,
  UFFD_EVENT,
  UFFD_EVENT_BATCH,
  UFFD_EVENT_FIELDS,
  UFFD_FAULT_FLAG,
  UFFD_FEATURE,
} from '../ts/index.ts';
import { monotonicMs } from '../ts/index.ts';
import type { Outcome } from '../ts/index.ts';
import { codeOf, HANG_MS, lacking, PAGE_BYTES, pageOf, temporaryFolder, until } from './support.ts';
import { Toucher } from './toucher.ts';
import type { Mapped, MapOptions } from './toucher.ts';

const MISSING = 1;
const MINOR = 4;
const needsMissing = { timeout: 2 * HANG_MS, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };
const needsMinor = { timeout: 2 * HANG_MS, skip: lacking('MINOR on memfd', 'UFFDIO_CONTINUE') };

const DONE: Outcome = { kind: 'done', bytes: PAGE_BYTES };

async function mapped(t: TestContext, options: MapOptions): Promise<{ toucher: Toucher; memory: Mapped }> {
  const toucher = Toucher.start(t);
  return { toucher, memory: await toucher.map(options) };
}

/** The next event, by polling; a batch of one is expected. */
function nextEvents(memory: Mapped): Promise<number[][]> {
  const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
  const { promise, resolve } = Promise.withResolvers<number[][]>();
  memory.uffd.poll(events, (count) => {
    memory.uffd.stopPolling();
    resolve(
      Array.from({ length: count }, (_, i) =>
        Array.from(events.subarray(i * UFFD_EVENT_FIELDS, (i + 1) * UFFD_EVENT_FIELDS)),
      ),
    );
  });
  return promise;
}

test(
  'a missing page that is touched is an event, and COPY resumes the thread with its bytes',
  needsMissing,
  async (t) => {
    const { toucher, memory } = await mapped(t, { pages: 8, features: UFFD_FEATURE.threadId });
    const before = monotonicMs();
    toucher.say('touch 3');
    const [event] = await nextEvents(memory);
    assert.deepEqual(event?.slice(0, 3), [UFFD_EVENT.pagefault, memory.at(3), 0]);
    assert.ok((event?.[4] ?? 0) >= before && (event?.[4] ?? 0) <= monotonicMs(), 'the time is of the monotonic clock');
    assert.deepEqual(memory.uffd.copy(memory.at(3), pageOf(0x5a), 0, PAGE_BYTES, true), DONE);
    const [, , byte, thread] = (await toucher.answer(/^touched 3/)).split(' ').map(Number);
    assert.equal(byte, 0x5a);
    assert.equal(event?.[3], thread);
  },
);

test('a write fault carries the write flag', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 8 });
  toucher.say('write 1 7');
  const [event] = await nextEvents(memory);
  assert.equal(event?.[2], UFFD_FAULT_FLAG.write);
  assert.deepEqual(memory.uffd.copy(memory.at(1), pageOf(1), 0, PAGE_BYTES, { wake: true }), DONE);
  await toucher.answer(/^touched 1 7 /);
});

test('COPY without wake installs the page and leaves its waiter to WAKE', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 8 });
  toucher.say('touch 2');
  await nextEvents(memory);
  assert.deepEqual(memory.uffd.copy(memory.at(2), pageOf(9), 0, PAGE_BYTES, false), DONE);
  assert.equal(toucher.heard(/^touched 2/), false);
  assert.deepEqual(memory.uffd.wake(memory.at(2), PAGE_BYTES), DONE);
  await toucher.answer(/^touched 2 9 /);
});

test('a page written to the memory file resumes its waiter on WAKE, without MINOR', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 8 });
  toucher.say('touch 5');
  await nextEvents(memory);
  assert.deepEqual(memory.file?.write(pageOf(0x33), 0, PAGE_BYTES, 5 * PAGE_BYTES), DONE);
  memory.uffd.wake(memory.at(5), PAGE_BYTES);
  await toucher.answer(/^touched 5 51 /);
});

test('COPY of a page that is there is present, and changes nothing', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 8 });
  memory.uffd.copy(memory.at(0), pageOf(1), 0, PAGE_BYTES, true);
  assert.deepEqual(memory.uffd.copy(memory.at(0), pageOf(2), 0, PAGE_BYTES, true), { kind: 'present', bytes: 0 });
  await toucher.ask('touch 0', /^touched 0 1 /);
});

test('COPY over missing, present, missing stops after the first page', needsMissing, async (t) => {
  const { memory } = await mapped(t, { pages: 8 });
  memory.uffd.copy(memory.at(1), pageOf(1), 0, PAGE_BYTES, true);
  const source = Buffer.concat([pageOf(2), pageOf(3), pageOf(4)]);
  assert.deepEqual(memory.uffd.copy(memory.at(0), source, 0, source.length, true), {
    kind: 'again',
    bytes: PAGE_BYTES,
  });
  const rest = source.length - PAGE_BYTES;
  assert.deepEqual(memory.uffd.copy(memory.at(1), source, PAGE_BYTES, rest, true), { kind: 'present', bytes: 0 });
  assert.deepEqual(memory.uffd.copy(memory.at(2), source, 2 * PAGE_BYTES, PAGE_BYTES, true), DONE);
});

test('COPY into memory that was unmapped is unmapped', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 8 });
  await toucher.ask('unmap 4 4', /^unmapped/);
  assert.deepEqual(memory.uffd.copy(memory.at(5), pageOf(1), 0, PAGE_BYTES, true), { kind: 'unmapped', bytes: 0 });
});

test(
  'after the process has exited COPY, ZEROPAGE, CONTINUE and UNREGISTER say exited, and WAKE does no harm',
  needsMissing,
  async (t) => {
    const { toucher, memory } = await mapped(t, { pages: 8 });
    await toucher.quit();
    const exited: Outcome = { kind: 'exited', bytes: 0 };
    assert.deepEqual(memory.uffd.copy(memory.at(0), pageOf(1), 0, PAGE_BYTES, true), exited);
    assert.deepEqual(memory.uffd.zeropage(memory.at(0), PAGE_BYTES), exited);
    assert.deepEqual(memory.uffd.continue(memory.at(0), PAGE_BYTES), exited);
    assert.deepEqual(memory.uffd.unregister(memory.address, 8 * PAGE_BYTES), exited);
    assert.deepEqual(memory.uffd.wake(memory.at(0), PAGE_BYTES), DONE);
  },
);

test('an unaligned or empty range is refused with EINVAL', needsMissing, async (t) => {
  const { memory } = await mapped(t, { pages: 8 });
  const refused: Outcome = { kind: 'refused', bytes: 0, errno: 'EINVAL' };
  assert.deepEqual(memory.uffd.copy(memory.at(0) + 1, pageOf(1), 0, PAGE_BYTES, true), refused);
  assert.deepEqual(memory.uffd.copy(memory.at(0), pageOf(1), 0, 0, true), refused);
  assert.deepEqual(memory.uffd.zeropage(memory.at(0), 100), refused);
  assert.deepEqual(memory.uffd.wake(memory.at(0) + 5, PAGE_BYTES), refused);
});

for (const features of [UFFD_FEATURE.eventRemove, UFFD_FEATURE.eventRemove | UFFD_FEATURE.threadId]) {
  test(
    `while a REMOVE event is pending COPY says again, and goes on once it was drained (features ${features})`,
    { timeout: 2 * HANG_MS, skip: lacking('EVENT_REMOVE') },
    async (t) => {
      const { toucher, memory } = await mapped(t, { kind: 'anon', pages: 8192, features });
      toucher.say('remove 8000 4');
      let page = 0;
      let outcome: Outcome = DONE;
      await until('a pending REMOVE', () => {
        outcome = memory.uffd.copy(memory.at(page++), pageOf(1), 0, PAGE_BYTES, true);
        return outcome.kind === 'again';
      });
      assert.deepEqual(outcome, { kind: 'again', bytes: 0 });
      const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
      assert.equal(memory.uffd.drain(events), 1);
      assert.deepEqual(Array.from(events.subarray(0, 3)), [UFFD_EVENT.remove, memory.at(8000), memory.at(8004)]);
      await toucher.answer(/^removed 0/);
      assert.deepEqual(memory.uffd.copy(memory.at(page), pageOf(1), 0, PAGE_BYTES, true), DONE);
      assert.equal(memory.uffd.drain(events), 0, 'nothing is left to read');
    },
  );
}

test(
  'REMOVE is entered in the ledger under its lock before the batch is handled',
  { timeout: 2 * HANG_MS, skip: lacking('EVENT_REMOVE') },
  async (t) => {
    const { toucher, memory } = await mapped(t, { pages: 8, features: UFFD_FEATURE.eventRemove });
    const ledger = PageLedger.create(8);
    t.after(() => ledger.close());
    const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
    const order: string[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const page = (index: number): number => ((events[index] ?? 0) - memory.address) / PAGE_BYTES;
    memory.uffd.poll(
      events,
      () => {
        order.push(codeOf(() => ledger.lockShared()) ?? 'free');
        ledger.unlockShared();
        resolve();
      },
      {
        underLock: {
          ledger,
          onEvents: (count) => {
            order.push(`${count} ${codeOf(() => ledger.lockShared())}`);
            ledger.remove(page(1), page(2) - page(1), new Uint32Array(8));
          },
        },
      },
    );
    toucher.say('remove 2 3');
    await promise;
    assert.deepEqual(order, ['1 EDEADLK', 'free']);
    assert.deepEqual(ledger.counts().removed, 3);
    await toucher.answer(/^removed 0/);
  },
);

test(
  'ZEROPAGE resumes the thread with zeros; twice it is present',
  { ...needsMissing, skip: lacking('ZEROPAGE on memfd') },
  async (t) => {
    const { toucher, memory } = await mapped(t, { pages: 8 });
    toucher.say('touch 0');
    await nextEvents(memory);
    assert.deepEqual(memory.uffd.zeropage(memory.at(0), PAGE_BYTES), DONE);
    await toucher.answer(/^touched 0 0 /);
    assert.deepEqual(memory.uffd.zeropage(memory.at(0), PAGE_BYTES), { kind: 'present', bytes: 0 });
  },
);

test(
  'a page in the cache is a minor fault; CONTINUE resumes it, twice is present, and without the page absent',
  needsMinor,
  async (t) => {
    const features = UFFD_FEATURE.missingShmem | UFFD_FEATURE.minorShmem;
    const { toucher, memory } = await mapped(t, { pages: 8, mode: MISSING | MINOR, features });
    memory.file?.write(pageOf(0x44), 0, PAGE_BYTES, 2 * PAGE_BYTES);
    toucher.say('touch 2');
    const [event] = await nextEvents(memory);
    assert.equal(event?.[2], UFFD_FAULT_FLAG.minor);
    assert.deepEqual(memory.uffd.continue(memory.at(2), PAGE_BYTES), DONE);
    await toucher.answer(/^touched 2 68 /);
    assert.deepEqual(memory.uffd.continue(memory.at(2), PAGE_BYTES), { kind: 'present', bytes: 0 });
    assert.deepEqual(memory.uffd.continue(memory.at(3), PAGE_BYTES), { kind: 'absent', bytes: 0 });
  },
);

test(
  'a poisoned page is a SIGBUS for who touches it, never a zero; a present page stays',
  { ...needsMissing, skip: lacking('UFFDIO_POISON') },
  async (t) => {
    const { toucher, memory } = await mapped(t, { pages: 8 });
    toucher.say('touch 6');
    await nextEvents(memory);
    assert.deepEqual(memory.uffd.poison(memory.at(6), PAGE_BYTES), DONE);
    await toucher.answer(/^sigbus 6/);
    memory.uffd.copy(memory.at(1), pageOf(1), 0, PAGE_BYTES, true);
    await toucher.ask('touch 1', /^touched 1 1 /);
    assert.deepEqual(memory.uffd.poison(memory.at(1), PAGE_BYTES), { kind: 'present', bytes: 0 });
  },
);

test('UNREGISTER wakes who waits: the rest reads as it is', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 8 });
  toucher.say('touch 7');
  await nextEvents(memory);
  assert.deepEqual(memory.uffd.unregister(memory.address, 8 * PAGE_BYTES), { kind: 'done', bytes: 8 * PAGE_BYTES });
  await toucher.answer(/^touched 7 0 /);
});

test('without memory COPY says so and the waiter stays; with memory again it is served', needsMissing, async (t) => {
  const folder = temporaryFolder(t);
  const namespace = ['-m', 'sh', '-c', `mount -t tmpfs -o size=8k none ${folder} && exec "$0"`];
  if (spawnSync('unshare', [...namespace, 'true']).status !== 0)
    return t.skip('a mount namespace with a tmpfs of its own is not allowed here');
  const toucher = Toucher.start(t, { command: 'unshare', args: namespace });
  const memory = await toucher.map({ kind: `${folder}/memory`, pages: 8 });
  memory.uffd.copy(memory.at(0), pageOf(1), 0, PAGE_BYTES, true);
  memory.uffd.copy(memory.at(1), pageOf(1), 0, PAGE_BYTES, true);
  toucher.say('touch 2');
  await nextEvents(memory);
  assert.deepEqual(memory.uffd.copy(memory.at(2), pageOf(2), 0, PAGE_BYTES, true), { kind: 'no-memory', bytes: 0 });
  assert.deepEqual(memory.file?.write(pageOf(2), 0, PAGE_BYTES, 2 * PAGE_BYTES), { kind: 'no-memory', bytes: 0 });
  assert.deepEqual(memory.file?.store(pageOf(2), 0, PAGE_BYTES, 3 * PAGE_BYTES), { kind: 'no-memory', bytes: 0 });
  assert.equal(toucher.heard(/^touched 2/), false);
  memory.file?.punch(0, PAGE_BYTES);
  assert.deepEqual(memory.uffd.copy(memory.at(2), pageOf(2), 0, PAGE_BYTES, true), DONE);
  await toucher.answer(/^touched 2 2 /);
});

test('80 waiting threads come in batches of at most 64, each page once', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 128 });
  toucher.say('threads 0 80');
  await until('80 waiting threads', () =>
    /pending:\s*80\n/.test(readFileSync(`/proc/self/fdinfo/${memory.uffd.fd}`, 'utf8')),
  );
  const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
  const batches: number[] = [];
  const addresses = new Set<number>();
  memory.uffd.poll(events, (count) => {
    batches.push(count);
    for (let i = 0; i < count; i++) addresses.add(events[i * UFFD_EVENT_FIELDS + 1] ?? 0);
  });
  await until('80 events', () => addresses.size >= 80);
  assert.deepEqual(batches, [64, 16]);
  const source = Buffer.alloc(80 * PAGE_BYTES, 6);
  assert.deepEqual(memory.uffd.copy(memory.address, source, 0, source.length, true), {
    kind: 'done',
    bytes: source.length,
  });
  for (let page = 0; page < 80; page++) await toucher.answer(new RegExp(`^touched ${page} 6 `));
});

test('a userfaultfd that became blocking ends the polling with an error, not with a loop', needsMissing, async (t) => {
  const { toucher, memory } = await mapped(t, { pages: 8 });
  const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
  const { promise, resolve } = Promise.withResolvers<string>();
  memory.uffd.poll(events, () => assert.fail('no event can be read'), { onClosed: (error) => resolve(error.code) });
  await toucher.ask('block', /^blocked/);
  toucher.say('touch 0');
  assert.equal(await promise, 'EBADF');
  // Whoever adopts it makes it right again.
  const again = memory.uffd.duplicate();
  const next = nextEvents({ ...memory, uffd: again });
  assert.equal((await next).length, 1);
  again.close();
});

test('what the VMM handed over is made non-blocking and is closed on exec', needsMissing, async (t) => {
  const { memory } = await mapped(t, { pages: 8 });
  const flags = Number.parseInt(
    /flags:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${memory.uffd.fd}`, 'utf8'))?.[1] ?? '0',
    8,
  );
  assert.equal(flags & 0o4000, 0o4000, 'O_NONBLOCK');
  assert.equal(flags & 0o2000000, 0o2000000, 'O_CLOEXEC');
});

for (const via of ['syscall', 'device'] as const) {
  const skip = lacking(`userfaultfd by ${via === 'device' ? '/dev/userfaultfd' : 'syscall'}`);
  test(`a userfaultfd opened by ${via} shakes hands once, refuses unknown features and other memory`, { skip }, () => {
    const strange = Uffd.open({ via, userModeOnly: true });
    assert.equal(
      codeOf(() => strange.handshake(2 ** 40)),
      'EINVAL',
    );
    strange.close();
    const uffd = Uffd.open({ via, userModeOnly: true });
    assert.equal(
      codeOf(() => uffd.drain(new Float64Array(5))),
      'EINVAL',
      'no handshake, no events',
    );
    const { features, ioctls } = uffd.handshake(UFFD_FEATURE.missingShmem);
    assert.equal(features & UFFD_FEATURE.missingShmem, UFFD_FEATURE.missingShmem);
    assert.notEqual(ioctls, 0n);
    assert.equal(
      codeOf(() => uffd.handshake(0)),
      'EINVAL',
    );
    assert.equal(uffd.drain(new Float64Array(5)), 0);
    const mode = { missing: true, minor: false, wp: false };
    assert.equal(
      codeOf(() => uffd.register(2 ** 46, PAGE_BYTES, mode)),
      'EINVAL',
      'nothing is mapped there',
    );
    uffd.close();
    uffd.close();
    assert.equal(uffd.fd, -1);
  });
}

test('wrong arguments are errors of the caller, and say which', { skip: lacking('userfaultfd by syscall') }, (t) => {
  const uffd = Uffd.open({ via: 'syscall', userModeOnly: true });
  t.after(() => uffd.close());
  assert.throws(() => uffd.copy(-1, pageOf(0), 0, PAGE_BYTES, true), {
    name: 'RangeError',
    message: /^address must be a whole number/,
  });
  assert.throws(() => uffd.copy(0.5, pageOf(0), 0, PAGE_BYTES, true), RangeError);
  assert.throws(() => uffd.copy(0, pageOf(0), 1, PAGE_BYTES, true), {
    name: 'RangeError',
    message: /not within the 4096 bytes of source/,
  });
  assert.throws(() => uffd.copy(0, [] as unknown as Uint8Array, 0, 0, true), {
    name: 'TypeError',
    message: 'source must be a Uint8Array',
  });
  assert.throws(() => uffd.wake(0, Number.NaN), RangeError);
  assert.throws(() => uffd.poll(new Float64Array(5), () => {}), RangeError);
  assert.throws(() => Uffd.adopt(0), { name: 'NativeError', code: 'EINVAL', message: /is not a userfaultfd/ });
  assert.equal(
    codeOf(() => Uffd.adopt(99_999)),
    'EBADF',
  );
  uffd.close();
  assert.throws(() => uffd.wake(0, PAGE_BYTES), { name: 'NativeError', code: 'EBADF', syscall: 'UFFDIO_WAKE' });
});

test('one poller a userfaultfd', needsMissing, async (t) => {
  const { memory } = await mapped(t, { pages: 8 });
  const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
  memory.uffd.poll(events, () => {});
  assert.equal(
    codeOf(() => memory.uffd.poll(events, () => {})),
    'EBUSY',
  );
  memory.uffd.stopPolling();
  memory.uffd.poll(events, () => {});
  memory.uffd.close();
});

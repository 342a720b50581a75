import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { ProcessMemory } from '../ts/index.ts';
import { codeOf, HANG_MS, lacking, PAGE_BYTES, pageOf, until } from './support.ts';
import { Toucher } from './toucher.ts';

const options = { timeout: 2 * HANG_MS, skip: lacking('process_vm_readv', 'userfaultfd by syscall') };
const PAGES = 512;

async function target(
  t: TestContext,
  kind: string,
  mode = 0,
): Promise<{ toucher: Toucher; address: number; memory: ProcessMemory }> {
  const toucher = Toucher.start(t);
  const { address } = await toucher.map({ kind, pages: PAGES, mode });
  const memory = ProcessMemory.open(toucher.pid);
  t.after(() => memory.close());
  return { toucher, address, memory };
}

test(
  'bytes of another process are read; past its mapping they are absent, after those that are there',
  options,
  async (t) => {
    const { toucher, address, memory } = await target(t, 'anon');
    await toucher.ask('fill 3 77', /^filled/);
    const into = Buffer.alloc(2 * PAGE_BYTES, 0xff);
    assert.deepEqual(memory.read(into, PAGE_BYTES, PAGE_BYTES, address + 3 * PAGE_BYTES), {
      kind: 'done',
      bytes: PAGE_BYTES,
    });
    assert.ok(into.equals(Buffer.concat([pageOf(0xff), pageOf(77)])));
    await toucher.ask(`unmap ${PAGES - 8} 8`, /^unmapped/);
    const last = address + (PAGES - 9) * PAGE_BYTES;
    assert.deepEqual(memory.read(into, 0, 2 * PAGE_BYTES, last), { kind: 'absent', bytes: PAGE_BYTES });
    assert.deepEqual(memory.read(into, 0, 10, 0), { kind: 'absent', bytes: 0 });
  },
);

for (const kind of ['anon', 'memfd']) {
  test(`holes of ${kind} memory are what was never written; looking fills none`, options, async (t) => {
    const { toucher, address, memory } = await target(t, kind);
    // Without the right to look at the files of mappings, shared memory has none that could be told.
    const seen = kind === 'anon' || process.getuid?.() === 0;
    for (const page of [0, 1, 7, 300, 511]) await toucher.ask(`fill ${page} 5`, /^filled/);
    await toucher.ask('fill 8 0', /^filled/);
    const before = await toucher.ask('resident', /^resident/);
    const pagesOf = (runs: Float64Array): number[] =>
      Array.from(runs, (bytes, i) => (i % 2 === 0 ? bytes - address : bytes) / PAGE_BYTES);
    const holes = await memory.findHoles(address, PAGES * PAGE_BYTES, PAGE_BYTES);
    assert.deepEqual(pagesOf(holes), seen ? [2, 5, 9, 291, 301, 210] : []);
    assert.deepEqual(memory.stillHoles(holes, PAGE_BYTES), holes);
    assert.equal(await toucher.ask('resident', /^resident/), before);
    for (const page of [2, 100, 101]) await toucher.ask(`fill ${page} 5`, /^filled/);
    assert.deepEqual(
      pagesOf(memory.stillHoles(holes, PAGE_BYTES)),
      seen ? [3, 4, 9, 91, 102, 198, 301, 210] : [],
      'what was written since is none any more',
    );
  });
}

test('a large page is a hole only where all of it is one', options, async (t) => {
  const { toucher, address, memory } = await target(t, 'anon');
  const large = 16 * PAGE_BYTES;
  const first = Math.ceil(address / large);
  await toucher.ask(`fill ${String(first * 16 - address / PAGE_BYTES + 35)} 5`, /^filled/);
  const holes = await memory.findHoles(first * large, 20 * large, large);
  assert.deepEqual(
    Array.from(holes, (bytes, i) => bytes / large - (i % 2 === 0 ? first : 0)),
    [0, 2, 3, 17],
  );
});

test('a gap between mappings is no hole: it is for the reading to find', options, async (t) => {
  const { toucher, address, memory } = await target(t, 'anon');
  const whole = await memory.findHoles(address, PAGES * PAGE_BYTES, PAGE_BYTES);
  assert.deepEqual(Array.from(whole), [address, PAGES * PAGE_BYTES]);
  await toucher.ask('unmap 100 1', /^unmapped/);
  const around = [address, 100 * PAGE_BYTES, address + 101 * PAGE_BYTES, (PAGES - 101) * PAGE_BYTES];
  assert.deepEqual(Array.from(memory.stillHoles(whole, PAGE_BYTES)), around);
  assert.deepEqual(Array.from(await memory.findHoles(address, PAGES * PAGE_BYTES, PAGE_BYTES)), around);
});

test('memory under a userfaultfd has no holes that could be told: it is not whole yet', options, async (t) => {
  const { address, memory } = await target(t, 'anon', 1);
  await assert.rejects(memory.findHoles(address, PAGES * PAGE_BYTES, PAGE_BYTES), {
    code: 'EBUSY',
    message: /registered with a userfaultfd/,
  });
});

test('once the process has exited every call says so', options, async (t) => {
  const { toucher, address, memory } = await target(t, 'anon');
  assert.equal(memory.alive(), true);
  await toucher.quit();
  await until('the end of the process', () => !memory.alive());
  assert.deepEqual(memory.read(pageOf(0), 0, PAGE_BYTES, address), { kind: 'exited', bytes: 0 });
  await assert.rejects(memory.findHoles(address, PAGE_BYTES, PAGE_BYTES), { code: 'ESRCH' });
  assert.equal(
    codeOf(() => memory.stillHoles(Float64Array.of(address, PAGE_BYTES), PAGE_BYTES)),
    'ESRCH',
  );
});

test('a process that is not there is ESRCH; a closed handle is EBADF', options, async () => {
  const child = spawn('true');
  await once(child, 'exit');
  assert.equal(
    codeOf(() => ProcessMemory.open(child.pid ?? 0)),
    'ESRCH',
  );
  assert.throws(() => ProcessMemory.open(0), RangeError);
  const own = ProcessMemory.open(process.pid);
  own.close();
  own.close();
  assert.equal(own.alive(), false);
  assert.equal(
    codeOf(() => own.read(pageOf(0), 0, 1, 0)),
    'EBADF',
  );
});

test('the memory of a process that may not be traced is EPERM, and the error says what is needed', options, (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root, to become somebody else');
  const script = `
    import(${JSON.stringify(new URL('../ts/index.ts', import.meta.url).href)}).then(({ ProcessMemory }) => {
      process.setgid(65534);
      process.setuid(65534);
      try { ProcessMemory.open(${process.pid}); } catch (error) { console.log(error.code, error.message); }
    });`;
  const { stdout } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  assert.match(stdout, /^EPERM process_vm_readv: EPERM: .*CAP_SYS_PTRACE/);
});

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { lockFile, PAGE, PageLedger } from '../ts/index.ts';
import { codeOf, temporaryFolder } from './support.ts';

const PAGES = 53;
const waiters = new Uint32Array(PAGES);
const INDEX = fileURLToPath(new URL('../ts/index.ts', import.meta.url));

/** Runs a script in a process of its own, and kills it without warning once it has said `ready`. */
async function killedInTheMiddle(t: TestContext, script: string): Promise<void> {
  const source = `import * as native from ${JSON.stringify(INDEX)};\n${script}\nconsole.log('ready');\nsetInterval(() => undefined, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
}

function statesOf(ledger: PageLedger): number[] {
  return Array.from({ length: ledger.pageCount }, (_, page) => ledger.state(page));
}

test('states outlive the process that noted them, killed without warning', async (t) => {
  const path = join(temporaryFolder(t), 'ledger');
  await killedInTheMiddle(
    t,
    `const ledger = globalThis.kept = native.PageLedger.create(${PAGES}, ${JSON.stringify(path)});
     ledger.setZero(0, 3); ledger.fault(5); ledger.claimRun(10, 20, 10);
     ledger.installed(10, 4, new Uint32Array(10)); ledger.remove(12, 1, new Uint32Array(1)); ledger.stage = 2;`,
  );
  const ledger = PageLedger.open(path);
  const expected = Array.from({ length: PAGES }, (): number => PAGE.missing);
  expected.fill(PAGE.zero, 0, 3).fill(PAGE.requested, 5, 6).fill(PAGE.present, 10, 14).fill(PAGE.requested, 14, 20);
  expected[12] = PAGE.removed;
  assert.deepEqual(statesOf(ledger), expected);
  assert.deepEqual(ledger.counts(), { missing: 53 - 14, requested: 7, present: 3, zero: 3, removed: 1 });
  assert.equal(ledger.stage, 2);
  assert.equal(ledger.diedReading, false);
  ledger.close();
});

test('a process that dies between reading an event and noting it is found out, once', async (t) => {
  const path = join(temporaryFolder(t), 'ledger');
  // Kept in reach: the end of a handle that is collected gives its lock back.
  await killedInTheMiddle(
    t,
    `globalThis.kept = native.PageLedger.create(${PAGES}, ${JSON.stringify(path)}); kept.lockExclusive();`,
  );
  const ledger = PageLedger.open(path);
  assert.equal(ledger.diedReading, true);
  // The dead one's lock is not in the file.
  ledger.lockExclusive();
  ledger.unlockExclusive();
  ledger.lockShared();
  ledger.unlockShared();
  ledger.close();
  const again = PageLedger.open(path);
  assert.equal(again.diedReading, false);
  again.close();
});

test('what is known of the memory decides, and the same again changes nothing', () => {
  const states = fc.array(fc.constantFrom(...Object.values(PAGE)), { minLength: PAGES, maxLength: PAGES });
  const seen = fc.constantFrom('held', 'absent', 'unknown' as const);
  fc.assert(
    fc.property(states, seen, fc.nat(PAGES), fc.nat(PAGES), (before, seen, a, b) => {
      const ledger = PageLedger.create(PAGES);
      for (const [page, state] of before.entries()) bring(ledger, page, state);
      const [first, end] = [Math.min(a, b), Math.max(a, b)];
      const after = before.map((state, page) => {
        if (page < first || page >= end) return state;
        if (seen === 'held') return PAGE.present;
        if (state === PAGE.requested) return PAGE.missing;
        return seen === 'absent' && state === PAGE.present ? PAGE.removed : state;
      });
      ledger.recover(first, end - first, seen);
      assert.deepEqual(statesOf(ledger), after);
      assert.equal(ledger.isWhole(), !after.some((state) => state === PAGE.missing || state === PAGE.requested));
      assert.equal(ledger.recover(first, end - first, seen), 0);
      ledger.close();
    }),
  );
});

/** From missing to any state, by the ways that there are. */
function bring(ledger: PageLedger, page: number, state: number): void {
  if (state === PAGE.zero) ledger.setZero(page, 1);
  else if (state === PAGE.removed) ledger.remove(page, 1, waiters);
  else if (state !== PAGE.missing) ledger.fault(page);
  if (state === PAGE.present) ledger.installed(page, 1, waiters);
}

test('a waiter of a dead process is forgotten with its request', () => {
  const ledger = PageLedger.create(PAGES);
  ledger.fault(7);
  ledger.recover(0, PAGES, 'absent');
  assert.equal(ledger.waiters(waiters), 0);
  assert.equal(ledger.fault(7), 'claimed');
  ledger.close();
});

test('a file that is no ledger, or not all of one, is refused by name', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'ledger');
  assert.equal(
    codeOf(() => PageLedger.open(path)),
    'ENOENT',
  );
  const refused = (): void =>
    assert.equal(
      codeOf(() => PageLedger.open(path)),
      'EINVAL',
    );
  writeFileSync(path, '');
  refused();
  writeFileSync(path, Buffer.alloc(8192, 0x41));
  refused();
  PageLedger.create(PAGES, path).close();
  const { size } = statSync(path);
  truncateSync(path, size - 8);
  refused();
  truncateSync(path, size + 8);
  refused();
  // A state that no ledger has.
  PageLedger.create(PAGES, path).close();
  const bytes = readFileSync(path);
  bytes[4096] = 0x07;
  writeFileSync(path, bytes);
  refused();
  mkdirSync(join(folder, 'dir'));
  assert.notEqual(
    codeOf(() => PageLedger.open(join(folder, 'dir'))),
    undefined,
  );
});

test('a ledger is made anew over an older one, which stays whole for whoever has it', (t) => {
  const path = join(temporaryFolder(t), 'ledger');
  const older = PageLedger.create(PAGES, path);
  older.fault(1);
  const newer = PageLedger.create(PAGES * 100, path);
  assert.equal(newer.state(1), PAGE.missing);
  assert.equal(older.state(1), PAGE.requested);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  older.close();
  newer.close();
});

test('a locked file is refused to the next process, and free once its holder is dead', async (t) => {
  const path = join(temporaryFolder(t), 'lock');
  await killedInTheMiddle(t, `native.lockFile(${JSON.stringify(path)});`);
  lockFile(path);
  // The lock belongs to the open file: even this process gets no second one.
  assert.equal(
    codeOf(() => lockFile(path)),
    'EAGAIN',
  );
});

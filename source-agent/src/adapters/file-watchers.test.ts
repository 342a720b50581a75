/** Processes that do not let themselves be looked into; for those that do see trapped-file.test.ts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { lacking, startWatchedMemfd } from '../../test/watched-memfd.ts';
import { FileWatchers, type Warn } from './file-watchers.ts';
import { markOf } from './proc-maps.ts';

const PAGES = 4;
const BUDGET = { timeout: 20_000 };
/** Enough for whoever does answer, on a machine that has much else to do. */
const ANSWER_MS = 1_000;
const WATCHES = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };
const NOBODY = 65_534;
const NO_MARK = markOf({ dev: 0n, ino: 0n });

function warnings(): { readonly said: string[]; readonly warn: Warn } {
  const said: string[] = [];
  return { said, warn: (about, text) => void said.push(`${JSON.stringify(about)} ${text}`) };
}

/** A proc of which some processes are real, and one does not answer: a FIFO blocks whoever opens it, as the kernel does for memory that is locked. */
function procWith(t: TestContext, silent: readonly number[], real: readonly number[]) {
  const proc = mkdtempSync(join(tmpdir(), 'pagewake-proc-'));
  t.after(() => rmSync(proc, { recursive: true }));
  for (const pid of real) symlinkSync(`/proc/${String(pid)}`, join(proc, String(pid)));
  // A proc without it hides processes; the real one may be nobody's to look into.
  symlinkSync(`/proc/${String(process.pid)}`, join(proc, '1'));
  const fifos = silent.map((pid) => {
    mkdirSync(join(proc, String(pid)));
    const path = join(proc, String(pid), 'maps');
    execFileSync('mkfifo', [path]);
    return path;
  });
  const letAnswer = (): void => {
    for (const path of fifos) closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
  };
  return { proc, letAnswer };
}

test(
  'a process that does not answer is passed over and told of once, and those after it are asked',
  WATCHES,
  async (t) => {
    const guest = await startWatchedMemfd(t, PAGES);
    const mark = markOf(statSync(guest.path, { bigint: true }));
    const { proc, letAnswer } = procWith(t, [999_999_999], [guest.pid]);
    const { said, warn } = warnings();
    const watchers = new FileWatchers(warn, proc, ANSWER_MS);
    assert.equal(await watchers.find([mark]), undefined);
    guest.watch('missing');
    assert.deepEqual(await watchers.find([mark]), { pid: guest.pid, mark });
    assert.equal(said.length, 1);
    assert.match(said[0] ?? '', /^{"pid":999999999} does not show its maps/);
    letAnswer();
  },
);

test('an agent that stood still itself finds nobody silent', WATCHES, async (t) => {
  const guest = await startWatchedMemfd(t, PAGES);
  const mark = markOf(statSync(guest.path, { bigint: true }));
  guest.watch('missing');
  const { proc } = procWith(t, [], [guest.pid]);
  const { said, warn } = warnings();
  const found = new FileWatchers(warn, proc, ANSWER_MS).find([mark]);
  // The pool is asked in turn: when it has answered this, processes are being asked.
  await readdir(proc);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1.2 * ANSWER_MS);
  assert.deepEqual([await found, said], [{ pid: guest.pid, mark }, []]);
});

test('where too many processes do not answer nothing is said to be whole', BUDGET, async (t) => {
  const { proc, letAnswer } = procWith(t, [999_999_998, 999_999_999], []);
  const watchers = new FileWatchers(() => undefined, proc, ANSWER_MS);
  await watchers.find([NO_MARK]);
  await assert.rejects(watchers.find([NO_MARK]), /does not show the maps of processes 99999999\d, 99999999\d/);
  letAnswer();
});

test(
  'that processes cannot be looked into is said once',
  { ...BUDGET, skip: process.getuid?.() === 0 ? false : 'to be somebody else takes root' },
  async () => {
    const { said, warn } = warnings();
    const watchers = new FileWatchers(warn);
    process.seteuid?.(NOBODY);
    try {
      assert.equal(await watchers.find([NO_MARK]), undefined);
      assert.equal(await watchers.find([NO_MARK]), undefined);
    } finally {
      process.seteuid?.(0);
    }
    assert.equal(said.length, 1);
    assert.match(said[0] ?? '', /^{"processes":[1-9]\d*} processes cannot be looked into .*CAP_SYS_PTRACE/);
  },
);

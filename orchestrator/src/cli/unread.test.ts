/** Output that nobody reads to its end: behind `| head -1` in a shell. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { test, type TestContext } from 'node:test';
import {
  PAGEWAKE,
  setStage,
  startDestination,
  startHeld,
  temporaryFolder,
  untilItWorks,
  whyNoMigrations,
} from '../../test/programs.ts';

const BUDGET = { timeout: 60_000 };
const UNREAD = 141;

interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** `$0` is pagewake. The shell's exit code is that of pagewake, where that is not 0. */
async function bash(t: TestContext, script: string): Promise<Said> {
  const child = spawn('bash', ['-o', 'pipefail', '-c', script, `${process.execPath} ${PAGEWAKE}`], { detached: true });
  t.after(() => {
    try {
      process.kill(-(child.pid ?? 0), 'SIGKILL');
    } catch {
      // It has ended, as it should.
    }
  });
  const [out, err, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<number[]>,
  ]);
  return { code: code ?? -1, out, err };
}

for (const words of ['--help', 'migrate qemu --help', 'serve-dest --help', 'completion bash'])
  test(`${words}: a reader that has had enough ends it, without a word`, BUDGET, async (t) => {
    const { code, out, err } = await bash(t, `$0 ${words} | head -1`);
    assert.match(out, /^[^\n]+\n$/);
    assert.equal(err, '');
    assert.ok(code === 0 || code === UNREAD, `exit code ${code}`);
    // Gone before there is anything to read.
    assert.deepEqual(await bash(t, `$0 ${words} | true`), { code: UNREAD, out: '', err: '' });
  });

test('so does one that does not read errors', BUDGET, async (t) => {
  assert.deepEqual(await bash(t, '$0 bogus 2>&1 >/dev/null | true'), { code: UNREAD, out: '', err: '' });
});

const skip = whyNoMigrations() ?? false;

test('list', { ...BUDGET, skip }, async (t) => {
  const { address } = await startDestination(t, temporaryFolder(t));
  assert.deepEqual(await bash(t, `$0 list --destination ${address} | true`), { code: UNREAD, out: '', err: '' });
  const { out, err } = await bash(t, `$0 list --destination ${address} | head -1`);
  assert.match(out, /^[^\n]+\n$/);
  assert.equal(err, '');
});

test('watch ends with its reader, and the migration goes on without either', { ...BUDGET, skip }, async (t) => {
  const stage = await setStage(t);
  const migration = await startHeld(t, stage);
  const destination = `--destination ${stage.destination.address}`;
  const { code, out, err } = await bash(t, `$0 watch held ${destination} | head -1`);
  assert.match(out, /^[^\n]+\n$/);
  assert.equal(err, '');
  assert.equal(code, UNREAD);
  assert.deepEqual(await bash(t, `$0 resume held ${destination} >/dev/null`), { code: 0, out: '', err: '' });
  assert.equal((await migration.exited).code, 0);
});

test('migrate comes to its end, and says by its exit code which', { ...BUDGET, skip }, async (t) => {
  const { args, to } = await setStage(t);
  assert.deepEqual(await bash(t, `$0 ${args.join(' ')} 2>&1 | true`), { code: 0, out: '', err: '' });
  await untilItWorks(to);
});

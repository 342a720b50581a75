/** scripts/run.mjs, as npm starts it, in a checkout of the test's own. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';

const BUDGET = { timeout: 30_000 };

/** With nothing that could be built, so that a set-up would fail, and say so. */
function checkout(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-checkout-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const path of ['scripts/run.mjs', 'scripts/setup.mjs', 'orchestrator/bin/compile-cache.mjs']) {
    const from = new URL(`../../${path}`, import.meta.url);
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    if (existsSync(from)) copyFileSync(from, join(folder, path));
  }
  writeFileSync(join(folder, 'program.mjs'), 'console.log(process.argv.slice(2).join(" "));\n');
  return folder;
}

const run = (folder: string, ...args: readonly string[]) =>
  spawnSync(process.execPath, [join(folder, 'scripts/run.mjs'), 'program.mjs', ...args], { encoding: 'utf8' });

for (const flag of ['--help', '-h'])
  test(`${flag} is answered by the program, and nothing is set up for it`, BUDGET, (t) => {
    const folder = checkout(t);
    mkdirSync(join(folder, 'node_modules/.bin'), { recursive: true });
    symlinkSync(process.execPath, join(folder, 'node_modules/.bin/node'));
    const { status, stdout, stderr } = run(folder, '--ram', '1G', flag);
    assert.equal(stderr, '');
    assert.equal(stdout, `--ram 1G ${flag}\n`);
    assert.equal(status, 0);
  });

test('where there is nothing that could answer it, one line says what to do', BUDGET, (t) => {
  const { status, stdout, stderr } = run(checkout(t), '--help');
  assert.match(stderr, /^nothing is set up here yet.*; npm run setup does it[^\n]*\n$/);
  assert.equal(stdout, '');
  assert.equal(status, 1);
});

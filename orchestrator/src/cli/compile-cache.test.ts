/** Compiled code that is found is run. So it is kept only where nobody else can put any, and a lane finds it as well as the agent. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MODULE = fileURLToPath(new URL('../../bin/compile-cache.mjs', import.meta.url));
const NOT_ROOT = process.getuid?.() === 0 ? false : 'only root can give a folder to another user';

let folder = '';
before(() => {
  // Below /tmp, which is sticky: as good as one's own folder.
  folder = mkdtempSync(join(tmpdir(), 'pw-compiled-'));
  // The cache beside the packages is looked for from where the module lies: here there are none.
  mkdirSync(join(folder, 'orchestrator/bin'), { recursive: true });
  copyFileSync(MODULE, join(folder, 'orchestrator/bin/compile-cache.mjs'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** What a program says that has the module as `cache`. */
function say(code: string, env: NodeJS.ProcessEnv = {}): string {
  const program = `import * as cache from '${join(folder, 'orchestrator/bin/compile-cache.mjs')}';\n${code}`;
  const own = { ...process.env };
  delete own['NODE_COMPILE_CACHE'];
  delete own['NODE_DISABLE_COMPILE_CACHE'];
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    env: { ...own, ...env },
  });
  assert.equal(stderr, '');
  return stdout.trim();
}

const isSafe = (path: string): string => say(`console.log(cache.isSafe('${path}'))`);

function make(name: string, mode: number): string {
  const path = join(folder, name);
  mkdirSync(path);
  chmodSync(path, mode);
  return path;
}

const MODES: readonly [what: string, parent: number, mode: number, safe: boolean][] = [
  ['this user’s alone', 0o700, 0o700, true],
  ['read by others', 0o755, 0o755, true],
  ['written by a group', 0o755, 0o775, false],
  ['written by all', 0o755, 0o777, false],
  ['written by all, and sticky', 0o755, 0o1777, false],
  ['in a folder in which others may put another in its place', 0o777, 0o700, false],
  ['in a folder in which others may add to it, and no more', 0o1777, 0o700, true],
];

for (const [what, parentMode, mode, safe] of MODES)
  test(`a folder ${what} is ${safe ? 'safe' : 'not safe'}`, () => {
    const parent = make(`parent-${what}`, parentMode);
    const path = join(parent, 'compiled');
    mkdirSync(path);
    chmodSync(path, mode);
    assert.equal(isSafe(path), String(safe));
    const link = join(folder, `link-${what}`);
    symlinkSync(path, link);
    assert.equal(isSafe(link), String(safe), 'and so is one that leads there');
  });

test('a folder of another user is not safe', { skip: NOT_ROOT }, () => {
  const path = make('foreign', 0o755);
  chownSync(path, 65_534, 65_534);
  assert.equal(isSafe(path), 'false');
});

test('a folder that is not there is not safe', () => {
  assert.equal(isSafe(join(folder, 'nowhere')), 'false');
});

const WORKER = `
import { getCompileCacheDir } from 'node:module';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
cache.useCompileCache('some-role');
const code = 'import("node:module").then((m) => console.log(String(m.getCompileCacheDir())))';
await once(new Worker(code, { eval: true }), 'exit');
console.log(String(getCompileCacheDir()));`;

test('a program and its workers have folders of their own in the user’s cache', () => {
  const home = make('home', 0o700);
  const [worker = '', program = ''] = say(WORKER, { XDG_CACHE_HOME: home }).split('\n');
  assert.ok(program.startsWith(join(home, 'pagewake/compiled/some-role/')), program);
  assert.ok(worker.startsWith(join(home, 'pagewake/compiled/some-role-workers/')), worker);
});

test('nobody else gets to what Node makes in it, whatever the umask', () => {
  const home = make('lax', 0o700);
  say(`process.umask(0);\n${WORKER}`, { XDG_CACHE_HOME: home });
  assert.equal(statSync(join(home, 'pagewake/compiled')).mode & 0o777, 0o700);
});

test('where no folder is safe nothing is kept, and everything runs', () => {
  const home = make('shared', 0o777);
  assert.equal(say(WORKER, { XDG_CACHE_HOME: home }), 'undefined\nundefined');
  assert.equal(say(WORKER, { XDG_CACHE_HOME: '/proc' }), 'undefined\nundefined');
});

test('who has said something about Node’s cache is obeyed', () => {
  const home = make('unused', 0o700);
  const given = make('given', 0o700);
  const [worker = '', program = ''] = say(WORKER, { XDG_CACHE_HOME: home, NODE_COMPILE_CACHE: given }).split('\n');
  assert.ok(program.startsWith(given) && worker.startsWith(given), `${program} ${worker}`);
  assert.equal(say(WORKER, { XDG_CACHE_HOME: home, NODE_DISABLE_COMPILE_CACHE: '1' }), 'undefined\nundefined');
  assert.ok(!existsSync(join(home, 'pagewake')));
});

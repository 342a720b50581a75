/** How the preload library gets out of a build: what is copied is enough to make it, and nothing else comes along. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { copiesOf, lastOf, readDockerfile } from './dockerfile.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const LIBRARY = 'shim/build/pagewake-shim.so';
const { args, stages } = readDockerfile(join(ROOT, 'deploy/shim.Dockerfile'));
const [build = assert.fail(), final = assert.fail()] = stages;

test('the library alone is in the last stage', () => {
  assert.equal(stages.length, 2);
  assert.equal(final.base, 'scratch');
  assert.deepEqual(copiesOf(final), [{ from: 'build', sources: [`/app/${LIBRARY}`], target: '/' }]);
  assert.deepEqual(
    final.instructions.map(({ name }) => name),
    ['COPY'],
  );
});

test('it is built in the image that the agents are built in', () => {
  const agent = readDockerfile(join(ROOT, 'deploy/dest-agent.Dockerfile'));
  assert.equal(args.get('NODE_VERSION'), agent.args.get('NODE_VERSION'));
  assert.ok(agent.stages.some(({ base }) => base === build.base));
});

test('what is copied is in the build context, and enough to build the library', { timeout: 120_000 }, (t) => {
  const app = mkdtempSync(join(tmpdir(), 'pagewake-shim-image-'));
  t.after(() => rmSync(app, { recursive: true }));
  const ignored = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n');
  for (const source of copiesOf(build).flatMap(({ sources }) => sources)) {
    for (let path = source; path !== '.'; path = dirname(path))
      assert.ok(!ignored.includes(path), `${path} is ignored`);
    cpSync(join(ROOT, source), join(app, source), { recursive: true });
  }
  const made = spawnSync('/bin/sh', ['-c', lastOf(build, 'RUN') ?? assert.fail()], { cwd: app, encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr);
  assert.ok(existsSync(join(app, LIBRARY)));
});

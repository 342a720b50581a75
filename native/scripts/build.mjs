// Builds the addon if its sources changed since the last build, and says so in one line. Plain JavaScript that Node 20 runs as
// well: it is part of the project's set-up, before Node 26 is there to start anything.
//
//   node native/scripts/build.mjs [--sanitize] [--force]
//
// --sanitize builds with AddressSanitizer and UndefinedBehaviorSanitizer into native/build-asan.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findNode } from './node-headers.mjs';

const SOURCE_FOLDERS = ['src', 'test/fixture'];
const room = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(join(room, 'package.json'));
const sanitize = process.argv.includes('--sanitize');
const force = process.argv.includes('--force');
const output = sanitize ? join(room, 'build-asan') : room;
const addon = join(output, 'build/Release/pagewake_native.node');
const stampPath = join(output, 'build/.stamp-sources');

function fail(message) {
  console.error(`native: ${message}`);
  process.exit(1);
}

function nodeOrFail() {
  try {
    return findNode(require);
  } catch (error) {
    return fail(error instanceof Error ? error.message : String(error));
  }
}

function sources() {
  const listed = SOURCE_FOLDERS.flatMap((folder) => readdirSync(join(room, folder)).map((name) => join(folder, name)));
  return ['binding.gyp', ...listed.filter((name) => /\.(cc|h)$/.test(name)).sort((a, b) => (a < b ? -1 : 1))];
}

function stamp(node) {
  const hash = createHash('sha256');
  hash.update(readFileSync(join(node.headers, 'include/node/node_version.h')));
  hash.update(readFileSync(join(dirname(require.resolve('node-addon-api')), 'package.json')));
  for (const name of sources()) hash.update(`${name}\n`).update(readFileSync(join(room, name)));
  return hash.digest('hex');
}

function missingTool() {
  for (const [tool, hint] of [
    ['make', 'make'],
    ['g++', 'g++'],
    ['python3', 'python3'],
  ]) {
    if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).status !== 0) return hint;
  }
  for (const [header, hint] of [
    ['xxhash.h', 'libxxhash-dev'],
    ['lz4.h', 'liblz4-dev'],
  ]) {
    const input = `#include <${header}>\n`;
    const found = spawnSync('g++', ['-E', '-x', 'c++', '-'], { input, stdio: ['pipe', 'ignore', 'ignore'] });
    if (found.status !== 0) return hint;
  }
  return undefined;
}

const node = nodeOrFail();
const wanted = stamp(node);
if (!force && existsSync(addon) && existsSync(stampPath) && readFileSync(stampPath, 'utf8') === wanted) {
  console.log(`native: ${sanitize ? 'sanitizer build' : 'addon'} is up to date`);
  process.exit(0);
}

const missing = missingTool();
if (missing !== undefined) fail(`the addon cannot be built without ${missing}: apt-get install ${missing}`);

const started = Date.now();
if (sanitize) {
  // node-gyp always builds into ./build: a copy of the sources beside keeps the two builds apart.
  mkdirSync(output, { recursive: true });
  for (const folder of SOURCE_FOLDERS) {
    rmSync(join(output, folder), { recursive: true, force: true });
    cpSync(join(room, folder), join(output, folder), { recursive: true, preserveTimestamps: true });
  }
  cpSync(join(room, 'binding.gyp'), join(output, 'binding.gyp'));
}
rmSync(stampPath, { force: true });
const build = spawnSync(
  node.binary,
  [require.resolve('node-gyp/bin/node-gyp.js'), 'configure', 'build', `--nodedir=${node.headers}`, '--silent'],
  {
    cwd: output,
    encoding: 'utf8',
    // binding.gyp asks `node` for a path: the one that runs the build, not whatever is first on the PATH.
    env: {
      ...process.env,
      PATH: `${dirname(node.binary)}:${process.env['PATH'] ?? ''}`,
      MAKEFLAGS: '-j2',
      GYP_DEFINES: `sanitize=${sanitize ? 1 : 0}`,
    },
  },
);
if (build.status !== 0) {
  process.stderr.write(`${build.stdout ?? ''}${build.stderr ?? ''}`);
  fail('the addon did not build: see above');
}
writeFileSync(stampPath, wanted);
console.log(
  `native: built the ${sanitize ? 'sanitizer build' : 'addon'} in ${((Date.now() - started) / 1000).toFixed(1)} s`,
);

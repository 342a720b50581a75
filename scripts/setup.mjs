/**
 * Makes a fresh checkout ready: Debian packages, npm packages, the native addon, the test VMM, the preload library. Runs under the Node of the
 * machine (20 or later) and needs no package itself. Does nothing, quickly, where there is nothing to do.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STAMP = join(ROOT, 'node_modules', '.pagewake-stamp');

/** What is needed, by the Debian package that has it, and how to see that it is there. */
const DEBIAN_PACKAGES = [
  { name: 'g++', present: () => onPath('g++') },
  { name: 'make', present: () => onPath('make') },
  { name: 'python3', present: () => onPath('python3') },
  { name: 'libxxhash-dev', present: () => existsSync('/usr/include/xxhash.h') },
  { name: 'liblz4-dev', present: () => existsSync('/usr/include/lz4.h') },
  { name: 'iproute2', present: () => onPath('ip') },
];
/** Only tests use these; without them they skip and say so. */
const DEBIAN_PACKAGES_OF_TESTS = [
  { name: 'docker-compose', present: () => onPath('docker-compose') },
  { name: 'openssl', present: () => onPath('openssl') },
];

function onPath(program) {
  const folders = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':');
  return folders.some((folder) => folder !== '' && existsSync(join(folder, program)));
}

function say(text) {
  process.stderr.write(`setup: ${text}\n`);
}

function fail(text) {
  process.stderr.write(`setup: ${text}\n`);
  process.exit(1);
}

/** Output is shown only where the command fails. */
function run(what, command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 64 << 20, ...options });
  if (result.status === 0) return true;
  process.stderr.write(`${result.stdout ?? ''}${result.stderr ?? ''}`);
  process.stderr.write(
    `setup: ${what} failed${result.error ? `: ${result.error.message}` : ` (exit ${result.status})`}\n`,
  );
  return false;
}

function systemPackages(wanted, optional) {
  const missing = wanted.filter((p) => !p.present()).map((p) => p.name);
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (process.getuid?.() !== 0 || !onPath('apt-get')) {
    const text = `missing: ${missing.join(', ')}. Run: sudo ${command}`;
    if (!optional) fail(text);
    say(`${text} (the tests that need them are skipped)`);
    return;
  }
  say(`installing ${missing.join(', ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const args = command.split(' ');
  const install = () => run(command, args[0], args.slice(1), { env });
  // The first try may fail on a package list that is old or was never fetched.
  const ok = spawnSync(args[0], args.slice(1), { env, stdio: 'ignore' }).status === 0;
  if (!ok && !(run('apt-get update', 'apt-get', ['update'], { env }) && install()) && !optional) process.exit(1);
}

function npmPackages() {
  const lock = createHash('sha256')
    .update(readFileSync(join(ROOT, 'package-lock.json')))
    .digest('hex');
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lock) return;
  say('installing npm packages');
  // The engines of some packages are newer than the machine's Node, which only runs this script: what runs them is in `node`.
  if (!run('npm ci', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])) process.exit(1);
  writeFileSync(STAMP, lock);
}

function build(script) {
  const node = join(ROOT, 'node_modules', '.bin', 'node');
  const result = spawnSync(node, [join(ROOT, script)], { cwd: ROOT, stdio: ['ignore', 2, 2] });
  if (result.status !== 0) fail(`${script} failed`);
}

/** QEMU and a guest kernel; without them tests skip and say so. */
function qemu() {
  const node = join(ROOT, 'node_modules', '.bin', 'node');
  const { stdout, status } = spawnSync(node, [join(ROOT, 'e2e/qemu/install.ts')], { cwd: ROOT, encoding: 'utf8' });
  const reason = status === 0 ? JSON.parse(stdout).reason : 'e2e/qemu/install.ts failed';
  if (reason) say(`${reason} (what needs QEMU is skipped)`);
}

/** @param {{ tests?: boolean, vm?: boolean }} options tests: also what only the tests need; vm: also QEMU and a guest for it */
export function setUp({ tests = false, vm = tests } = {}) {
  systemPackages(DEBIAN_PACKAGES, false);
  if (tests) systemPackages(DEBIAN_PACKAGES_OF_TESTS, true);
  npmPackages();
  build('native/scripts/build.mjs');
  build('testvmm/scripts/build.mjs');
  build('shim/scripts/build.mjs');
  if (vm) qemu();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) setUp({ tests: process.argv.includes('--tests') });

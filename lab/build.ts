/**
 * The lab's kernel: Debian's source, this room's patches and configuration, built once for what it is made of. Everything lies in the cache
 * folder; a changed patch costs the files that it touches.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CACHE_FOLDER } from '../e2e/qemu/cache.ts';
import { downloadKernelSource, installPackages } from '../e2e/qemu/debian.ts';
import { LabError } from './boot.ts';
import { configArguments, notTaken, parseKernelConfig } from './config.ts';
import { commonPrefix, kernelKey, type Ingredients, type Patch } from './key.ts';

/** Debian's package, by the series: patches are made for one. */
export const SOURCE_PACKAGE = 'linux-source-7.3';
export const LAB_CACHE = join(CACHE_FOLDER, 'lab');
const KERNELS = join(LAB_CACHE, 'kernels');
const LOG = join(LAB_CACHE, 'build.log');
const LOCK = join(LAB_CACHE, 'build.lock');
const ROOM = fileURLToPath(new URL('kernel', import.meta.url));
/** In a tree: what has been done to it. */
const STATE = '.lab';

const TOOLS = [
  ...[
    { name: 'flex', present: () => onPath('flex') },
    { name: 'bison', present: () => onPath('bison') },
    { name: 'bc', present: () => onPath('bc') },
    { name: 'patch', present: () => onPath('patch') },
    { name: 'xz-utils', present: () => onPath('xz') },
  ],
  { name: 'libelf-dev', present: () => existsSync('/usr/include/libelf.h') },
  { name: 'libssl-dev', present: () => existsSync('/usr/include/openssl/ssl.h') },
];

function onPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => folder && existsSync(join(folder, program)));
}

const say = (text: string): void => void process.stderr.write(`lab: ${text}\n`);

/** What it says goes to the log; where it fails, the end of that is shown. */
function run(what: string, program: string, args: readonly string[], cwd: string): void {
  const log = openSync(LOG, 'a');
  try {
    // Nobody's name or clock goes into a kernel: the same ingredients are the same bytes.
    const named = { KBUILD_BUILD_USER: 'lab', KBUILD_BUILD_HOST: 'pagewake', KBUILD_BUILD_TIMESTAMP: '1970-01-01' };
    const { status, error } = spawnSync(program, args, {
      cwd,
      stdio: ['ignore', log, log],
      env: { ...process.env, ...named, LC_ALL: 'C' },
    });
    if (error) throw new LabError(`${what}: ${program}: ${error.message}`);
    if (status === 0) return;
  } finally {
    closeSync(log);
  }
  const end = readFileSync(LOG, 'utf8').trim().split('\n').slice(-15).join('\n');
  throw new LabError(`${what} failed (all of it: ${LOG})\n${end}`);
}

const ARCHIVE = /^source-(.+)\.tar\.xz$/;

/** The source that is there, else Debian's latest of the series. */
function source(): { version: string; archive: string } {
  mkdirSync(LAB_CACHE, { recursive: true });
  const found = readdirSync(LAB_CACHE).find((name) => ARCHIVE.test(name));
  const version = found === undefined ? undefined : ARCHIVE.exec(found)?.[1];
  if (found !== undefined && version !== undefined) return { version, archive: join(LAB_CACHE, found) };
  say(`downloading ${SOURCE_PACKAGE} (160 MB)`);
  const fetched = downloadKernelSource(SOURCE_PACKAGE, LAB_CACHE);
  const archive = join(LAB_CACHE, `source-${fetched.version}.tar.xz`);
  renameSync(fetched.archive, archive);
  return { version: fetched.version, archive };
}

function patchesIn(folder: string): Patch[] {
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.patch')) : [];
  return names.toSorted().map((name) => ({ name, text: readFileSync(join(folder, name), 'utf8') }));
}

/** A folder is there as a whole or not at all. */
function unpack(archive: string, tree: string): void {
  say('unpacking the source (1.7 GB)');
  const made = mkdtempSync(`${tree}-making-`);
  run('unpacking the source', 'tar', ['-xf', archive, '--strip-components=1', '-C', made], LAB_CACHE);
  mkdirSync(join(made, STATE));
  renameSync(made, tree);
}

/** Takes back what is not wanted any more, last first, and applies what is: the rest of the tree keeps its times, and `make` its objects. */
function patchTree(tree: string, wanted: readonly Patch[]): void {
  const state = join(tree, STATE);
  const applied = patchesIn(state);
  const kept = commonPrefix(applied, wanted);
  if (kept === applied.length && kept === wanted.length) return;
  // Killed in between, nobody would know which half is done.
  writeFileSync(join(state, 'half-patched'), '');
  const patch = (file: string, ...flags: string[]): void =>
    run(`the patch ${file}`, 'patch', ['-p1', '--no-backup-if-mismatch', '--fuzz=0', ...flags, '-i', file], tree);
  for (const { name } of applied.slice(kept).toReversed()) {
    patch(join(state, name), '--reverse');
    rmSync(join(state, name));
  }
  for (const { name, text } of wanted.slice(kept)) {
    writeFileSync(join(state, `trying-${name}`), text);
    patch(join(state, `trying-${name}`));
    renameSync(join(state, `trying-${name}`), join(state, name));
  }
  rmSync(join(state, 'half-patched'));
}

function configure(tree: string, text: string): void {
  const noted = join(tree, STATE, 'config');
  if (existsSync(noted) && readFileSync(noted, 'utf8') === text) return;
  rmSync(noted, { force: true });
  const config = parseKernelConfig(text);
  run('make tinyconfig', 'make', ['tinyconfig'], tree);
  run('the configuration', 'scripts/config', configArguments(config), tree);
  run('make olddefconfig', 'make', ['olddefconfig'], tree);
  const refused = notTaken(config, readFileSync(join(tree, '.config'), 'utf8'));
  if (refused.length > 0) throw new LabError(`the kernel's configuration does not take ${refused.join(', ')}`);
  writeFileSync(noted, text);
}

function build({ version, config, patches }: Ingredients, archive: string, to: string): void {
  const missing = TOOLS.filter((tool) => !tool.present()).map((tool) => tool.name);
  if (missing.length > 0) installPackages(missing);
  writeFileSync(LOG, '');
  const tree = join(LAB_CACHE, `tree-${version}`);
  if (existsSync(join(tree, STATE, 'half-patched'))) rmSync(tree, { recursive: true });
  if (!existsSync(tree)) unpack(archive, tree);
  patchTree(tree, patches);
  configure(tree, config);
  say(`building the kernel (10 minutes of two processors the first time; ${LOG})`);
  run('the build', 'nice', ['-n', '19', 'make', `-j${availableParallelism()}`, 'bzImage'], tree);
  const made = mkdtempSync(`${to}-making-`);
  copyFileSync(join(tree, 'arch/x86/boot/bzImage'), join(made, 'bzImage'));
  rmSync(to, { recursive: true, force: true });
  renameSync(made, to);
}

interface Kernel {
  readonly path: string;
  readonly version: string;
  readonly key: string;
}

function ingredients(): { readonly of: Ingredients; readonly archive: string } {
  const { version, archive } = source();
  const config = readFileSync(join(ROOM, 'config'), 'utf8');
  return { of: { version, config, patches: patchesIn(ROOM) }, archive };
}

function locked(): void {
  mkdirSync(KERNELS, { recursive: true });
  const { of, archive } = ingredients();
  const folder = join(KERNELS, kernelKey(of));
  if (!existsSync(join(folder, 'bzImage'))) build(of, archive, folder);
}

function present(): Kernel | undefined {
  const archived = existsSync(LAB_CACHE) && readdirSync(LAB_CACHE).some((name) => ARCHIVE.test(name));
  if (!archived) return undefined;
  const { of } = ingredients();
  const key = kernelKey(of);
  const path = join(KERNELS, key, 'bzImage');
  return existsSync(path) ? { path, version: of.version, key } : undefined;
}

/** The kernel for what lies in kernel/. Quick where it was built before; else one process builds, and others wait for it. */
export function labKernel(): Kernel {
  const before = present();
  if (before) return before;
  mkdirSync(LAB_CACHE, { recursive: true });
  // The kernel lets go of a flock whose holder died.
  const self = fileURLToPath(import.meta.url);
  const { status, error } = spawnSync('flock', [LOCK, process.execPath, self, '--locked'], { stdio: 'inherit' });
  if (error) throw new LabError(`flock: ${error.message} (Debian: util-linux)`);
  const kernel = present();
  if (status !== 0 || !kernel) throw new LabError('there is no kernel for the lab; why was said above');
  return kernel;
}

if (import.meta.main && process.argv.includes('--locked')) {
  try {
    locked();
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    say(error.message);
    process.exitCode = 1;
  }
}

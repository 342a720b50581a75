/**
 * What tests with a real QEMU need beyond this tree: QEMU itself, and a Debian cloud kernel for its guest. Both are found, or installed where
 * that can be done without changing how the machine installs anything else; else the reason is said, for a skip to print.
 *
 * `node scripts/run.mjs e2e/qemu/install.ts` does it ahead of the tests and prints the answer as JSON.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { accelOf } from './accel.ts';
import { CACHE_FOLDER } from './cache.ts';
import { AptError, installQemu, unpackKernel } from './debian.ts';

export interface QemuParts {
  /** The program. */
  readonly qemu: string;
  readonly version: string;
  readonly kernel: string;
  readonly modules: readonly string[];
}

export type QemuLab = { readonly reason: undefined; readonly parts: QemuParts } | { readonly reason: string };

/** `x-ignore-shared` works with post-copy's needs, and the events are as the orchestrator expects them, from here on. */
const OLDEST_MAJOR = 8;
const PROGRAM = 'qemu-system-x86_64';
/** Tests run in parallel files, and each of them may be the first. */
const LOCK_WAIT_S = 600;

const KERNEL_FOLDER = join(CACHE_FOLDER, 'guest-kernel');
/** Why the last installation failed: the tests that skip for it say so. */
const WHY_NOT = join(CACHE_FOLDER, 'why-no-qemu');

interface Found {
  readonly path: string;
  readonly version: string;
  readonly major: number;
}

function findQemu(): Found | undefined {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder, PROGRAM);
    if (folder === '' || !existsSync(path)) continue;
    const said = spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout;
    const match = /version (\d+)\.[\d.]+/.exec(said);
    if (match) return { path, version: match[0].slice('version '.length), major: Number(match[1]) };
  }
  return undefined;
}

function findKernel(): Pick<QemuParts, 'kernel' | 'modules'> | undefined {
  const kernel = join(KERNEL_FOLDER, 'vmlinuz');
  if (!existsSync(kernel)) return undefined;
  const modules = join(KERNEL_FOLDER, 'modules');
  return {
    kernel,
    modules: readdirSync(modules)
      .toSorted()
      .map((name) => join(modules, name)),
  };
}

function present(): QemuParts | undefined {
  const qemu = findQemu();
  const kernel = findKernel();
  return qemu && qemu.major >= OLDEST_MAJOR && kernel
    ? { qemu: qemu.path, version: qemu.version, ...kernel }
    : undefined;
}

/** The one who holds the lock does it; who waited for it finds it done. */
function install(): QemuLab {
  try {
    if ((findQemu()?.major ?? 0) < OLDEST_MAJOR) installQemu();
    if (!findKernel()) unpackKernel(KERNEL_FOLDER);
  } catch (error) {
    if (error instanceof AptError) return { reason: error.message };
    throw error;
  }
  const parts = present();
  if (parts) return { reason: undefined, parts };
  const qemu = findQemu();
  return { reason: qemu ? `QEMU ${qemu.version} is too old, ${OLDEST_MAJOR} is needed` : `${PROGRAM} is not on PATH` };
}

/** Finds or installs; a second process waits for the first. Quick where everything is there. */
export function qemuLab(): QemuLab {
  const parts = present();
  if (parts) return { reason: undefined, parts };
  mkdirSync(CACHE_FOLDER, { recursive: true });
  // The kernel lets go of a flock whose holder died; a lock file of our own would have to guess.
  const run = spawnSync(
    'flock',
    [
      ...['--wait', String(LOCK_WAIT_S), join(CACHE_FOLDER, 'install.lock')],
      ...[process.execPath, fileURLToPath(import.meta.url), '--locked'],
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const lab = ((): QemuLab => {
    if (run.error) return { reason: `flock: ${run.error.message} (Debian: util-linux)` };
    if (run.status !== 0) return { reason: `the installation of QEMU's parts ended with ${String(run.status)}` };
    return JSON.parse(run.stdout) as QemuLab;
  })();
  writeFileSync(WHY_NOT, lab.reason ?? '');
  return lab;
}

/** For tests: what is there, or why not. Never installs: `npm test` has tried that at its start. */
export function presentQemuLab(): QemuLab {
  const parts = present();
  if (parts) return { reason: undefined, parts };
  const why = existsSync(WHY_NOT) ? readFileSync(WHY_NOT, 'utf8') : '';
  return { reason: why || `QEMU ${OLDEST_MAJOR} and a guest kernel are not there (run: npm run setup -- --tests)` };
}

if (import.meta.main) {
  const locked = process.argv.includes('--locked');
  const lab = locked ? install() : qemuLab();
  // May take 15 s, which no test should spend.
  const accel = !locked && lab.reason === undefined ? { accel: accelOf(lab.parts) } : {};
  process.stdout.write(`${JSON.stringify({ ...lab, ...accel })}\n`);
}

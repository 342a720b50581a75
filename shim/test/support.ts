/** What the tests of the shim share: where things are, folders that go with the test, waiting with a budget. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const PAGE_BYTES = 4096;
/** A hang fails by this budget, with a name. */
export const HANG_MS = 20_000;

/** Another build of the library, and what has to be loaded before it: the sanitizer run sets both. */
const BUILD = process.env['PAGEWAKE_SHIM_BUILD'] ?? fileURLToPath(new URL('../build', import.meta.url));
export const SANITIZED = process.env['PAGEWAKE_SHIM_BUILD'] !== undefined;
export const FIXTURE = join(BUILD, 'fixture');
export const PRELOAD = [process.env['PAGEWAKE_SHIM_RUNTIME'], join(BUILD, 'pagewake-shim.so')].join(' ').trim();

function folder(t: TestContext, where: string): string {
  const path = mkdtempSync(join(where, 'pagewake-shim-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** For sockets. */
export function temporaryFolder(t: TestContext): string {
  return folder(t, tmpdir());
}

/** For guest RAM: tmpfs. */
export function memoryFolder(t: TestContext): string {
  return folder(t, '/dev/shm');
}

/** Waits until `condition` holds; its last word fails the test where it never does. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + HANG_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${HANG_MS} ms`);
    await sleep(2);
  }
}

/** The features that a userfaultfd was opened with. */
export function featuresOf(fd: number): number {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
  const features = /^API:\s*[0-9a-f]+:([0-9a-f]+):/m.exec(text)?.[1];
  if (features === undefined) throw new Error(`descriptor ${fd} is no userfaultfd: ${text}`);
  return Number.parseInt(features, 16);
}

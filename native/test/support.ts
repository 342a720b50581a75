/** What the native tests share: skipping with a reason, waiting with a budget, and descriptors that must not leak. */
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe } from '../ts/index.ts';

export const PAGE_BYTES = 4096;
/** A hang fails by this budget, with a name. */
export const HANG_MS = 10_000;

const rows = probe();

/** False where the machine has all of it, else the reason to skip, from the probe. */
export function lacking(...names: readonly string[]): string | false {
  for (const name of names) {
    const row = rows.find((row) => row.name === name);
    if (row === undefined) throw new Error(`the probe has no row "${name}"`);
    if (!row.available) return `this machine lacks ${name} (${row.detail})`;
  }
  return false;
}

export function pageOf(byte: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, byte);
}

/** A folder that goes with the test. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-native-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Waits until `condition` holds; its last word fails the test where it never does. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + HANG_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${HANG_MS} ms`);
    await sleep(2);
  }
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Every open descriptor, and what it is of. */
export function descriptors(): readonly string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [`${fd} → ${readlinkSync(`/proc/self/fd/${fd}`)}`];
    } catch {
      // The one that listed them, or one that another thread has closed meanwhile.
      return [];
    }
  });
}

/** Waits until every descriptor is closed that was not open `before`; fails with those that are left. */
export async function untilClosed(before: readonly string[]): Promise<void> {
  const left = (): readonly string[] => descriptors().filter((one) => !before.includes(one));
  try {
    await until('all descriptors closed', () => left().length === 0);
  } catch (error) {
    throw new Error(`still open: ${left().join(', ')}`, { cause: error });
  }
}

/** The code of what `call` throws; undefined where it does not. */
export function codeOf(call: () => unknown): string | undefined {
  try {
    call();
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
  return undefined;
}

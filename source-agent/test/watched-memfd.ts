/** A process with a memory file that a real userfaultfd watches, or does not: the VMM on the destination of a migration, as others see it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { probe, Uffd, UFFD_FEATURE, UnixListener } from '@pagewake/native';
import { K4 } from './guests.ts';

/** The native core's own: it says at the top what it does. */
const PROGRAM = fileURLToPath(new URL('../../native/build/Release/pagewake_toucher', import.meta.url));

/** False where the machine can do it, else the reason to skip. */
export function lacking(...names: readonly string[]): string | false {
  const rows = probe();
  for (const name of names) {
    const row = rows.find((one) => one.name === name) ?? assert.fail(`the probe has no row "${name}"`);
    if (!row.available) return `this machine lacks ${name} (${row.detail})`;
  }
  return false;
}

export interface Watched {
  readonly pid: number;
  readonly path: string;
  watch(mode: 'missing' | 'minor'): void;
  unwatch(): void;
  kill(): Promise<void>;
}

/** At /proc/PID/fd/N. Not watched to begin with. Nobody touches its memory. It holds `other` too, as descriptor 3, and never maps it. */
export async function startWatchedMemfd(t: TestContext, pages: number, other?: number): Promise<Watched> {
  const watched = await start(t, 'memfd', pages, other);
  const descriptors = `/proc/${String(watched.pid)}/fd`;
  const number = readdirSync(descriptors).find((n) => readlinkSync(join(descriptors, n)).startsWith('/memfd:toucher'));
  return { ...watched, path: join(descriptors, number ?? assert.fail('it has no memfd')) };
}

/** The same with a file on a tmpfs, as QEMU has it, which is made if it is not there. */
export async function startWatchedFile(t: TestContext, path: string, pages: number): Promise<Watched> {
  return { ...(await start(t, path, pages)), path };
}

async function start(t: TestContext, kind: string, pages: number, other?: number): Promise<Omit<Watched, 'path'>> {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-watched-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const child = spawn(PROGRAM, { stdio: ['pipe', 'pipe', 'inherit', other] });
  const gone = once(child, 'exit');
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await gone;
  };
  t.after(kill);
  const socket = join(folder, 'memory.sock');
  const { promise: came, resolve } = Promise.withResolvers<{ data: Buffer; fds: number[] }>();
  const listener = UnixListener.listen(socket, (connection) => {
    connection.onData((data, fds) => {
      connection.close();
      resolve({ data, fds });
    });
  });
  child.stdin?.write(`map ${kind} ${String(pages)} 0 ${String(UFFD_FEATURE.minorShmem)} ${socket}\n`);
  const { data, fds } = await came;
  listener.close();
  const uffd = Uffd.adopt(fds[0] ?? assert.fail('no userfaultfd came over'));
  t.after(() => uffd.close());
  const pid = child.pid ?? assert.fail('no pid');
  const address = Number(data.toString());
  return {
    pid,
    // By a descriptor that came over: the kernel registers the memory of the process that opened it.
    watch: (mode) => {
      uffd.register(address, pages * K4, { missing: mode === 'missing', wp: false, minor: mode === 'minor' });
    },
    unwatch: () => assert.equal(uffd.unregister(address, pages * K4).kind, 'done'),
    kill,
  };
}

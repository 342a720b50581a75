/** The guest of the tests with QEMU: a Debian kernel and one static program of ours (guest/), packed into an initrd. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpio, DIRECTORY, EXECUTABLE, FILE } from './cpio.ts';
import type { QemuParts } from './install.ts';

export interface GuestImage {
  readonly kernel: string;
  readonly initrd: string;
}

/** What the guest does; `guest/README.md` says more. Its memory has to fit beside its kernel, which takes about 60 MiB. */
export interface GuestOptions {
  /** Memory that is filled, verified and rewritten for ever. */
  readonly memMiB: number;
  /** Default random, which no compression makes smaller. */
  readonly fill?: 'random' | 'text';
  /** Pages that were written with zeros. Default 4. */
  readonly zerosMiB?: number;
  /** Threads that share the memory. Default 1. */
  readonly workers?: number;
  /** Pages a second of each worker; 0, the default: as many as it can. */
  readonly pagesPerS?: number;
  /** Blocks of 16 KiB written and read back, O_DIRECT, on the first virtio disk: a second, or as many as it can. Default: none. */
  readonly disk?: { readonly blocksPerS: number } | 'flat-out';
  /** ADDRESS/BITS of its network card; a TCP echo server listens on port 7. Default: no network. */
  readonly net?: string;
}

const SOURCES = fileURLToPath(new URL('guest', import.meta.url));
const BUILD = fileURLToPath(new URL('build', import.meta.url));
const FLAGS = ['-std=gnu17', '-O2', '-static', '-pthread', '-Wall', '-Wextra', '-Werror'];

function compile(to: string): void {
  const sources = readdirSync(SOURCES).filter((name) => name.endsWith('.c'));
  execFileSync('gcc', [...FLAGS, '-o', to, ...sources], { cwd: SOURCES, stdio: ['ignore', 'inherit', 'inherit'] });
}

/** Built once for what it is made of; several test files may do so at once. */
export function guestImage(parts: QemuParts): GuestImage {
  const hash = createHash('sha256');
  for (const file of [...readdirSync(SOURCES).map((name) => join(SOURCES, name)), ...parts.modules])
    hash.update(file).update(readFileSync(file));
  const initrd = join(BUILD, `initrd-${hash.digest('hex').slice(0, 16)}.cpio`);
  if (!existsSync(initrd)) {
    mkdirSync(BUILD, { recursive: true });
    const folder = mkdtempSync(join(BUILD, 'making-'));
    try {
      compile(join(folder, 'init'));
      const modules = parts.modules.map((path) => ({
        path: `modules/${basename(path)}`,
        mode: FILE,
        content: readFileSync(path),
      }));
      const folders = ['dev', 'proc', 'sys', 'modules'].map((path) => ({ path, mode: DIRECTORY }));
      const init = { path: 'init', mode: EXECUTABLE, content: readFileSync(join(folder, 'init')) };
      writeFileSync(join(folder, 'initrd'), cpio([...folders, init, ...modules]));
      renameSync(join(folder, 'initrd'), initrd);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  return { kernel: parts.kernel, initrd };
}

/** The kernel's command line. */
export function kernelCommandLine(options: GuestOptions): string {
  const values: Record<string, string | number | undefined> = {
    mem: options.memMiB,
    fill: options.fill,
    zeros: options.zerosMiB,
    workers: options.workers,
    rate: options.pagesPerS,
    disk: options.disk ? 1 : undefined,
    diskRate: typeof options.disk === 'object' ? options.disk.blocksPerS : undefined,
    net: options.net,
  };
  const own = Object.entries(values).flatMap(([name, value]) => (value === undefined ? [] : [`pw.${name}=${value}`]));
  return ['console=ttyS0', 'quiet', 'panic=-1', 'mitigations=off', ...own].join(' ');
}

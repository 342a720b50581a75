/** What the lab's kernel starts with, and the programs that check it: compiled once for what they are made of. */
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
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpio, DIRECTORY, EXECUTABLE } from '../e2e/qemu/cpio.ts';
import { LAB_CACHE } from './build.ts';

/** Static: what runs in the lab is the machine's own user space, whichever that is. */
const FLAGS = ['-std=gnu17', '-O2', '-static', '-pthread', '-Wall', '-Wextra', '-Werror'];

/** @returns the file that `make` leaves at the path that it is given */
function once(name: string, sources: string, make: (files: readonly string[], to: string) => void): string {
  const names = readdirSync(sources).toSorted();
  const hash = createHash('sha256').update(FLAGS.join(' '));
  for (const file of names) hash.update(file).update(readFileSync(join(sources, file)));
  const made = join(LAB_CACHE, `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(made)) return made;
  mkdirSync(LAB_CACHE, { recursive: true });
  const folder = mkdtempSync(join(LAB_CACHE, 'making-'));
  try {
    const files = names.filter((file) => file.endsWith('.c')).map((file) => join(sources, file));
    make(files, join(folder, name));
    renameSync(join(folder, name), made);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return made;
}

function compile(files: readonly string[], to: string): void {
  execFileSync('gcc', [...FLAGS, '-o', to, ...files], { stdio: ['ignore', 'inherit', 'inherit'] });
}

export function labInitrd(): string {
  return once('initrd', fileURLToPath(new URL('init', import.meta.url)), (files, to) => {
    const program = `${to}-program`;
    compile(files, program);
    const folders = ['dev', 'proc', 'sys', 'ro', 'rw', 'new'].map((path) => ({ path, mode: DIRECTORY }));
    writeFileSync(to, cpio([...folders, { path: 'init', mode: EXECUTABLE, content: readFileSync(program) }]));
  });
}

/** The checks of the kernel itself (kernel/checks). Seen in the lab at the same path. */
export function kernelChecks(): string {
  return once('kernel-checks', fileURLToPath(new URL('kernel/checks', import.meta.url)), compile);
}

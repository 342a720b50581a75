/** Real QEMUs for the tests: tiny machines without a disk or a kernel, whose firmware finds nothing to boot. All are gone when the test is. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { Child, temporaryFolder } from './programs.ts';

const QEMU = 'qemu-system-x86_64';
const RAM_PARENT = '/dev/shm';

/** For `{ skip }`. */
export function whyNoQemu(): string | undefined {
  const { error, stdout } = spawnSync(QEMU, ['--version'], { encoding: 'utf8' });
  if (error) return `${QEMU} is not installed`;
  const major = Number(/version (\d+)/.exec(stdout)?.[1]);
  if (!(major >= 8)) return `${QEMU} is version ${String(major)}; 8 or later is needed`;
  return existsSync(RAM_PARENT) ? undefined : `${RAM_PARENT} is not there`;
}

export interface TestQemu {
  readonly child: Child;
  readonly qmpPath: string;
  readonly ramFile: string;
}

export interface TestQemuOptions {
  readonly incoming?: boolean;
  /** The whole of `-object`, with `RAM` for the file. */
  readonly backend?: string;
  readonly machine?: string;
  readonly args?: readonly string[];
}

/** Its file is there before anybody may connect; and connecting to find out would take the place of the one client that QMP has. */
function listens(path: string): boolean {
  // Num RefCount Protocol Flags …: __SO_ACCEPTCON is 0x10000.
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${path}`) && line.split(/ +/)[3] === '00010000');
}

export async function startTestQemu(t: TestContext, options: TestQemuOptions = {}): Promise<TestQemu> {
  const { incoming = false, machine = 'pc,memory-backend=ram', args = [] } = options;
  const { backend = 'memory-backend-file,id=ram,size=32M,share=on,mem-path=RAM' } = options;
  const ramFolder = mkdtempSync(join(RAM_PARENT, 'pagewake-'));
  t.after(() => rmSync(ramFolder, { recursive: true, force: true }));
  const ramFile = join(ramFolder, 'ram');
  const qmpPath = join(temporaryFolder(t), 'qmp');
  const child = new Child(t, QEMU, QEMU, [
    ...['-accel', 'tcg', '-m', '32', '-nodefaults', '-display', 'none', '-monitor', 'none', '-machine', machine],
    ...(backend === '' ? [] : ['-object', backend.replace('RAM', ramFile)]),
    ...['-qmp', `unix:${qmpPath},server=on,wait=off`],
    ...(incoming ? ['-incoming', 'defer'] : []),
    ...args,
  ]);
  while (!listens(qmpPath)) await new Promise((resolve) => setTimeout(resolve, 20));
  return { child, qmpPath, ramFile };
}

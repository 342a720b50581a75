/** A real firecracker as a process, by its public HTTP API on a Unix socket. */
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { whyNoKvm } from '../lib/machine.ts';
import { LOOPBACK } from '../lib/migration.ts';
import { Program } from '../lib/processes.ts';

const NEEDED = {
  FIRECRACKER_BIN: 'a firecracker',
  FIRECRACKER_KERNEL: 'an uncompressed kernel for it',
  FIRECRACKER_ROOTFS: 'an ext4 image of a root file system',
} as const;

export interface Stock {
  readonly bin: string;
  readonly kernel: string;
  readonly rootfs: string;
}

export const stock = (): Stock => ({
  bin: process.env['FIRECRACKER_BIN'] ?? '',
  kernel: process.env['FIRECRACKER_KERNEL'] ?? '',
  rootfs: process.env['FIRECRACKER_ROOTFS'] ?? '',
});

/** Everything that is missing for a real firecracker to run its guest here, or undefined. */
export function whyNoFirecracker(): string | undefined {
  const lacking = Object.entries(NEEDED).flatMap(([name, what]) => {
    const path = process.env[name];
    if (path === undefined || path === '') return [`${name} is not set (path of ${what})`];
    return existsSync(path) ? [] : [`${name}: ${path} is not there`];
  });
  const noKvm = whyNoKvm();
  if (noKvm !== undefined) lacking.push(noKvm);
  return lacking.length === 0
    ? undefined
    : `${lacking.join('; ')}; also needs a KVM that boots stock kernels. Not yet run against a real firecracker`;
}

const CALL_MS = 60_000;
const START_MS = 10_000;
/** A console that has been silent for so long is at a prompt, or at work. */
const SILENT_MS = 3000;

export class Firecracker {
  readonly program: Program;
  readonly #socket: string;

  private constructor(program: Program, socket: string) {
    this.program = program;
    this.#socket = socket;
  }

  static async start(t: TestContext, bin: string, folder: string, name: string): Promise<Firecracker> {
    const socket = join(folder, `${name}.api`);
    const program = new Program(name, LOOPBACK, [bin, '--api-sock', socket, '--id', name]);
    t.after(() => program.stop());
    const firecracker = new Firecracker(program, socket);
    for (let waitedMs = 0; !existsSync(socket); waitedMs += 50) {
      if (waitedMs > START_MS) throw new Error(`${name} has no API socket: ${program.stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return firecracker;
  }

  get console(): string {
    return this.program.lines
      .map((line) => (typeof line['text'] === 'string' ? line['text'] : JSON.stringify(line)))
      .join('\n');
  }

  /** @throws Error with Firecracker's own words where it does not take it */
  async call(method: 'GET' | 'PUT' | 'PATCH', path: string, body?: object): Promise<unknown> {
    const text = body === undefined ? '' : JSON.stringify(body);
    const { promise, resolve, reject } = Promise.withResolvers<{ readonly status: number; readonly answer: string }>();
    const headers = {
      Accept: 'application/json',
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(text),
    };
    const call = request({ socketPath: this.#socket, method, path, headers, timeout: CALL_MS }, (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (piece: string) => (answer += piece));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, answer }));
      response.on('error', reject);
    });
    call.on('timeout', () => call.destroy(new Error(`no answer within ${CALL_MS} ms`)));
    call.on('error', reject);
    call.end(text);
    const { status, answer } = await promise.catch((error: unknown) => {
      throw new Error(`${this.program.name}: ${method} ${path}`, { cause: error });
    });
    if (status >= 300) throw new Error(`${this.program.name}: ${method} ${path}: ${status} ${answer}`);
    return answer === '' ? undefined : (JSON.parse(answer) as unknown);
  }

  async boot({ kernel, rootfs }: Stock, memoryMiB: number): Promise<void> {
    await this.call('PUT', '/machine-config', { vcpu_count: 1, mem_size_mib: memoryMiB });
    await this.call('PUT', '/boot-source', {
      kernel_image_path: kernel,
      // A panic ends the process one second later, which is seen.
      boot_args: 'console=ttyS0 reboot=k panic=1 pci=off',
    });
    await this.call('PUT', '/drives/rootfs', {
      drive_id: 'rootfs',
      path_on_host: rootfs,
      is_root_device: true,
      is_read_only: false,
    });
    await this.call('PUT', '/actions', { action_type: 'InstanceStart' });
    await this.program.waitFor('a word of its guest', (line) => /Linux version|login:/.test(String(line['text'])));
    for (let lines = -1; lines !== this.program.lines.length;) {
      lines = this.program.lines.length;
      await new Promise((resolve) => setTimeout(resolve, SILENT_MS));
    }
  }

  pause(): Promise<unknown> {
    return this.call('PATCH', '/vm', { state: 'Paused' });
  }

  save(stateFile: string, memoryFile: string): Promise<unknown> {
    const files = { snapshot_path: stateFile, mem_file_path: memoryFile };
    return this.call('PUT', '/snapshot/create', { snapshot_type: 'Full', ...files });
  }

  /** @param from a memory file, or the socket of whoever resolves its faults */
  load(stateFile: string, from: 'File' | 'Uffd', path: string, resume: boolean): Promise<unknown> {
    const memory = { backend_type: from, backend_path: path };
    return this.call('PUT', '/snapshot/load', { snapshot_path: stateFile, mem_backend: memory, resume_vm: resume });
  }
}

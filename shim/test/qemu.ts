/** A real QEMU whose monitor is on its standard streams, with the library preloaded; without its environment that does nothing. */
import { existsSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { Preloaded, type Environment } from './process.ts';
import { SANITIZED } from './support.ts';

const BINARY = 'qemu-system-x86_64';
const SANDBOX = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';

/** False where the tests can run, else the reason to skip. */
export function lacksQemu(): string | false {
  if (SANITIZED) return 'QEMU itself is not built with the sanitizers';
  const folders = (process.env['PATH'] ?? '').split(':');
  return folders.some((folder) => existsSync(`${folder}/${BINARY}`)) ? false : `${BINARY} is not installed`;
}

export interface QemuOptions {
  /** One memory backend each. */
  readonly ram: readonly string[];
  readonly mibEach: number;
  /** Of each memory-backend-file. */
  readonly backend?: string;
  readonly machine?: string;
  readonly incoming?: boolean;
  readonly sandbox?: boolean;
  readonly args?: readonly string[];
}

interface Reply {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

export class Qemu extends Preloaded {
  #ids = 0;

  /** Without waiting for its monitor: it may end before. */
  static spawn(t: TestContext, environment: Environment, options: QemuOptions): Qemu {
    const { ram, mibEach, backend = 'share=on', machine = 'pc' } = options;
    const objects = ram.flatMap((path, i) => [
      '-object',
      `memory-backend-file,id=ram${i},size=${mibEach}M,mem-path=${path},${backend}`,
    ]);
    const numa = ram.flatMap((_, i) => ['-numa', `node,nodeid=${i},memdev=ram${i}`]);
    return new Qemu(
      t,
      [
        BINARY,
        ...['-accel', 'tcg', '-m', `${mibEach * ram.length}`, '-nodefaults', '-display', 'none', '-qmp', 'stdio'],
        ...objects,
        ...(ram.length === 1 ? ['-machine', `${machine},memory-backend=ram0`] : ['-machine', machine, ...numa]),
        ...(options.incoming === true ? ['-incoming', 'defer'] : []),
        ...(options.sandbox === true ? ['-sandbox', SANDBOX] : []),
        ...(options.args ?? []),
      ],
      environment,
    );
  }

  static async start(t: TestContext, environment: Environment, options: QemuOptions): Promise<Qemu> {
    const qemu = Qemu.spawn(t, environment, options);
    await qemu.line(/^\{"QMP"/);
    await qemu.execute('qmp_capabilities');
    return qemu;
  }

  async execute(command: string, args: object = {}): Promise<unknown> {
    const id = ++this.#ids;
    this.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    const reply = JSON.parse(await this.line(new RegExp(`"id": ${id}\\b`))) as Reply;
    if (reply.error) throw new Error(`${command}: ${reply.error.desc}`);
    return reply.return;
  }

  /** Reads a word of guest memory, in QEMU's main thread. */
  readWord(physicalAddress: number): Promise<unknown> {
    return this.execute('human-monitor-command', { 'command-line': `xp /1wx ${physicalAddress}` });
  }

  async capabilities(...names: readonly string[]): Promise<void> {
    const capabilities = names.map((capability) => ({ capability, state: true }));
    await this.execute('migrate-set-capabilities', { capabilities });
  }

  migrationIs(status: string): Promise<string> {
    return this.line(new RegExp(`"event": "MIGRATION".*"status": "${status}"`));
  }
}

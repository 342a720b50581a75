/** Starts testvmm as a process and speaks to its control socket; a helper of the tests in this folder only. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const BINARY = fileURLToPath(new URL('../build/testvmm', import.meta.url));

export interface Event {
  readonly event: string;
  readonly kvm?: boolean;
  readonly reason?: string;
  readonly message?: string;
  readonly finder?: string;
  readonly gpa?: string;
  readonly offset?: number;
  readonly expected?: string;
  readonly found?: string;
  readonly looks_like?: string;
  readonly pages?: number;
  readonly size?: number;
}

export interface WorkerStats {
  readonly work: number;
  readonly pass: number;
  readonly heartbeats: number;
  readonly wrong: number;
}

export interface Reply {
  readonly ok: boolean;
  readonly error?: string;
  readonly pid?: number;
  readonly path?: string;
  readonly filled?: boolean;
  readonly kvm?: boolean;
  readonly state?: string;
  readonly wrong?: number;
  readonly pages?: number;
  readonly workload_pages?: number;
  readonly paused_at_ns?: number;
  readonly vcpus?: readonly WorkerStats[];
  readonly io?: WorkerStats | null;
  readonly regions?: readonly {
    readonly address: number;
    readonly size: number;
    readonly offset: number;
    readonly page_size: number;
    readonly gpa: number;
    readonly file_offset?: number;
  }[];
}

export interface Exit {
  readonly code: number | null;
  readonly stderr: string;
}

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'testvmm-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Runs to the end, for command lines that are refused and for snapshots. */
export async function runTestvmm(args: readonly string[]): Promise<Exit & { readonly stdout: string }> {
  assert.ok(existsSync(BINARY), 'testvmm is not built: node testvmm/scripts/build.mjs');
  const child = spawn(BINARY, [...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const out = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (out.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (out.stderr += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { code, ...out };
}

export class Vmm {
  readonly events: Event[] = [];
  readonly exit: Promise<Exit>;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #control: string;
  #ended = false;

  private constructor(child: ChildProcessByStdio<null, Readable, Readable>, control: string) {
    this.#child = child;
    this.#control = control;
    createInterface({ input: child.stdout }).on('line', (line) => this.events.push(JSON.parse(line) as Event));
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    this.exit = new Promise((resolve) => {
      child.on('close', (code) => {
        this.#ended = true;
        resolve({ code, stderr });
      });
    });
  }

  /** Resolves when the control socket listens; null, after a skip with the reason, where this machine cannot. */
  static async start(
    t: TestContext,
    folder: string,
    role: 'source' | 'destination',
    args: readonly string[],
  ): Promise<Vmm | null> {
    assert.ok(existsSync(BINARY), 'testvmm is not built: node testvmm/scripts/build.mjs');
    const control = join(folder, `${role}.sock`);
    const all = [role, '--control', control, '--quiet-heartbeats', '--test-commands', ...args];
    const vmm = new Vmm(spawn(BINARY, all, { stdio: ['ignore', 'pipe', 'pipe'] }), control);
    t.after(() => {
      vmm.#child.kill('SIGKILL');
      return vmm.exit;
    });
    await vmm.until('listening', 'failed');
    const missing = vmm.missing(args);
    if (missing === undefined) return vmm;
    t.skip(missing);
    return null;
  }

  private missing(args: readonly string[]): string | undefined {
    const failed = this.events.find((e) => e.event === 'failed');
    if (failed !== undefined) return failed.message ?? 'testvmm failed without a message';
    const started = this.events[0];
    if (started?.kvm === false && !args.includes('--no-kvm')) return '/dev/kvm cannot be used here';
    return undefined;
  }

  /** The first event of one of these names, waiting for it. Fails if the program ends without one. */
  async until(...names: readonly string[]): Promise<Event> {
    for (;;) {
      const found = this.events.find((e) => names.includes(e.event));
      if (found !== undefined) return found;
      if (this.#ended) assert.fail(`testvmm ended before ${names.join(' or ')}: ${(await this.exit).stderr}`);
      await sleep(5);
    }
  }

  async untilFilled(): Promise<void> {
    while ((await this.command('stats')).filled !== true) await sleep(10);
  }

  /** One command on a connection of its own. */
  async command(line: string): Promise<Reply> {
    const socket = connect(this.#control);
    let answer = '';
    await new Promise<void>((resolve, reject) => {
      socket.on('error', reject);
      socket.on('close', () => resolve());
      socket.on('data', (chunk: Buffer) => {
        answer += chunk.toString();
        if (answer.endsWith('\n')) resolve();
      });
      socket.write(`${line}\n`);
    });
    socket.destroy();
    assert.notEqual(answer, '', `no answer to ${line}`);
    return JSON.parse(answer) as Reply;
  }

  async ok(line: string): Promise<Reply> {
    const reply = await this.command(line);
    assert.equal(reply.error, undefined, line);
    assert.equal(reply.ok, true, line);
    return reply;
  }

  terminate(): void {
    this.#child.kill('SIGTERM');
  }
}

/** The agent's end of the VMM channel without an agent: descriptors are dropped on arrival, so nothing is ever served. */
export interface Peer {
  readonly path: string;
  /** The handshake, once it has come. */
  readonly handshake: Promise<string>;
  /** All that has come, the handshake included. */
  received(): string;
  /** An object as a line. */
  send(message: object): void;
  write(text: string): void;
  close(): void;
}

export async function listenAsAgent(t: TestContext, folder: string): Promise<Peer> {
  const path = join(folder, 'agent.sock');
  let peer: Socket | undefined;
  let all = '';
  let first: (text: string) => void = () => {};
  const handshake = new Promise<string>((resolve) => (first = resolve));
  const server: Server = createServer((socket) => {
    peer = socket;
    socket.on('error', () => {}); // a VMM that exits resets the connection
    socket.once('data', (chunk) => first(chunk.toString()));
    socket.on('data', (chunk) => (all += chunk.toString()));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    peer?.destroy();
    server.close();
  });
  return {
    path,
    handshake,
    received: () => all,
    send: (message) => void peer?.write(`${JSON.stringify(message)}\n`),
    write: (text) => void peer?.write(text),
    close: () => void peer?.destroy(),
  };
}

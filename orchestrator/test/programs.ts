/** Real programs for the tests: both agents and `pagewake` through its own entry, and test VMMs. All are gone when the test is. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { OWN_LOOPBACK } from '@pagewake/agent-kit/testing';
import { connectDestination } from '../src/agents.ts';
import { ControlSocket, type Reply } from '../src/drivers/control-socket.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const PAGEWAKE = join(ROOT, 'orchestrator/bin/pagewake.mjs');
const TESTVMM = join(ROOT, 'testvmm/build/testvmm');
const ADDON = join(ROOT, 'native/build/Release/pagewake_native.node');
const COMMAND_MS = 30_000;

/** Why whole migrations cannot be tried here; undefined: they can. */
export function whyNoMigrations(): string | undefined {
  for (const [what, path] of [
    ['test VMM', TESTVMM],
    ['native addon', ADDON],
  ] as const) {
    if (!existsSync(path)) return `the ${what} is not built: run \`npm run setup\``;
  }
  // A guest's stage-2 faults need a userfaultfd that sees faults of the kernel: root, or this device.
  if (process.getuid?.() === 0) return undefined;
  try {
    accessSync('/dev/userfaultfd', constants.R_OK | constants.W_OK);
    return undefined;
  } catch {
    return 'neither root nor /dev/userfaultfd: the destination VMM cannot open a userfaultfd';
  }
}

export interface Exit {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Child {
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #exit: Promise<Exit>;
  readonly #name: string;
  #onLine: (() => void) | undefined;
  #ended = false;

  constructor(t: TestContext, name: string, program: string, args: readonly string[]) {
    this.#name = name;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    const output = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      createInterface({ input: child[stream] }).on('line', (line) => {
        output[stream] += `${line}\n`;
        this.#lines.push(line);
        this.#onLine?.();
      });
    }
    this.#exit = once(child, 'close').then(([code, signal]: unknown[]) => {
      this.#ended = true;
      this.#onLine?.();
      return { code: typeof code === 'number' ? code : signal === null ? 0 : 128, ...output };
    });
    t.after(() => this.kill('SIGKILL'));
  }

  get exited(): Promise<Exit> {
    return this.#exit;
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    if (this.#ended) return;
    this.#process.kill(signal);
    await this.#exit;
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** The first line of either stream, past or to come, that matches. */
  async line(pattern: RegExp): Promise<string> {
    for (let at = 0; ;) {
      for (; at < this.#lines.length; at++) {
        const line = this.#lines[at] ?? '';
        if (pattern.test(line)) return line;
      }
      if (this.#ended) throw new Error(`${this.#name} ended without ${String(pattern)}:\n${this.#lines.join('\n')}`);
      await new Promise<void>((resolve) => (this.#onLine = resolve));
    }
  }
}

export const startPagewake = (t: TestContext, args: readonly string[]): Child =>
  new Child(t, `pagewake ${args[0] ?? ''}`, process.execPath, [PAGEWAKE, ...args]);

export const pagewake = (t: TestContext, args: readonly string[]): Promise<Exit> => startPagewake(t, args).exited;

export interface Agent {
  readonly child: Child;
  readonly address: string;
}

export async function startAgent(t: TestContext, args: readonly string[]): Promise<Agent> {
  const child = startPagewake(t, args);
  const line = JSON.parse(await child.line(/"msg":"listening"/)) as { readonly address: string };
  return { child, address: line.address };
}

export interface Vmm {
  readonly child: Child;
  readonly socket: string;
  ask(...words: readonly string[]): Promise<Reply>;
}

async function startVmm(t: TestContext, socket: string, args: readonly string[], ready: RegExp): Promise<Vmm> {
  const child = new Child(t, `testvmm ${args[0] ?? ''}`, TESTVMM, [...args, '--control', socket, '--quiet-heartbeats']);
  await child.line(/"event":"listening"/);
  await child.line(ready);
  const control = new ControlSocket(socket, 'VMM');
  return { child, socket, ask: (...words) => control.command(words, { timeoutMs: COMMAND_MS }) };
}

const IO = ['--io-rate', '200', '--io-pages', '256'];
/** Guests that leave the CPUs to the agents. */
const SMALL = ['--ram', '64M', '--workload', '32M', '--vcpu-rate', '2000', ...IO];
/** Takes seconds to move: time enough to catch it on the way. */
export const LARGE = ['--ram', '384M', '--workload', '320M', '--vcpu-rate', '50000', ...IO];

export interface Stage {
  readonly folder: string;
  readonly source: Agent;
  readonly destination: Agent;
  readonly from: Vmm;
  readonly to: Vmm;
  /** Arguments of `pagewake migrate` that move the guest between them. */
  readonly args: readonly string[];
}

export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export const startSource = (t: TestContext): Promise<Agent> =>
  startAgent(t, ['serve-source', '--listen', '127.0.0.1:0']);

export const startDestination = (t: TestContext, folder: string, listen = `${OWN_LOOPBACK}:0`): Promise<Agent> =>
  startAgent(t, ['serve-dest', '--listen', listen, '--vmm-socket-dir', join(folder, 'vmm')]);

export const startDestinationVmm = (t: TestContext, folder: string): Promise<Vmm> =>
  startVmm(t, join(folder, 'to.sock'), ['destination'], /"event"/);

/** Both agents, a guest that runs, and a VMM that waits for it. */
export async function setStage(t: TestContext, guest: readonly string[] = SMALL): Promise<Stage> {
  const folder = temporaryFolder(t);
  const [source, destination, from, to] = await Promise.all([
    startSource(t),
    startDestination(t, folder),
    startVmm(t, join(folder, 'from.sock'), ['source', ...guest], /"event":"filled"/),
    startDestinationVmm(t, folder),
  ]);
  const agents = ['--source', source.address, '--destination', destination.address];
  const vmms = ['--source-vmm', `unix:${from.socket}`, '--destination-vmm', `unix:${to.socket}`];
  return { folder, source, destination, from, to, args: ['migrate', ...agents, ...vmms] };
}

/** Runs `testvmm snapshot`, and gives its image; the state is beside it. */
export async function takeSnapshot(t: TestContext, folder: string): Promise<string> {
  const image = join(folder, 'guest.mem');
  const child = new Child(t, 'testvmm snapshot', TESTVMM, ['snapshot', '--out', image, ...SMALL]);
  const { code, stderr } = await child.exited;
  if (code !== 0) throw new Error(`testvmm snapshot: ${stderr}`);
  return image;
}

/** A migration that is under way and stays so: prefetch rests. Its name is "held". */
export async function startHeld(t: TestContext, stage: Stage, flags: readonly string[] = []): Promise<Child> {
  const migration = startPagewake(t, [...stage.args, '--id', 'held', '--json', ...flags]);
  await migration.line(/"type":"progress".*"phase":"filling"/);
  const agent = connectDestination({ address: stage.destination.address });
  try {
    await agent.call((c, o) => c.pause({ migrationId: 'held' }, o));
  } finally {
    agent.close();
  }
  return migration;
}

const workOf = async (vmm: Vmm): Promise<number> => {
  const { vcpus } = (await vmm.ask('stats')) as { readonly vcpus: readonly { readonly work: number }[] };
  return vcpus.reduce((sum, { work }) => sum + work, 0);
};

/** Resolves once the guest has done more work than before: it runs. Never, if it does not; the test's budget ends that. */
export async function untilItWorks(vmm: Vmm): Promise<void> {
  const before = await workOf(vmm);
  while ((await workOf(vmm)) <= before) await new Promise((resolve) => setTimeout(resolve, 20));
}

/**
 * Whole migrations of a guest between two QEMUs: two hosts in network namespaces, an agent on each, the destination's QEMU under the shim, and
 * `pagewake migrate qemu` as a user runs it. One guest may move many times, each time to a QEMU that is started for it.
 */
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MigrationSummary } from '@pagewake/orchestrator';
import { presentQemuLab, type QemuParts } from '../qemu/install.ts';
import type { Machine } from '../qemu/native.ts';
import { PAGEWAKE, startDestAgent, startSourceAgent, type Agent, type AgentOptions } from './agents.ts';
import type { Scope } from './cleanup.ts';
import { makeGuestNet, type GuestNet } from './guest-net.ts';
import { makeHosts, whyNoNamespaces, type Host, type Hosts } from './hosts.ts';
import { temporaryFolder } from './migration.ts';
import { Program, type JsonLine } from './processes.ts';
import { guestWorks, SHIM, startQemu, whyNoRamFiles, type Qemu, type QemuOptions } from './qemu.ts';

const MIGRATION_MS = 60_000;

/** For `{ skip }`: what a migration between two QEMUs needs and this machine lacks. */
export function whyNoQemuMigration(): string | undefined {
  return (
    presentQemuLab().reason ??
    whyNoNamespaces() ??
    whyNoRamFiles() ??
    (existsSync(SHIM) ? undefined : 'the shim is not built (node shim/scripts/build.mjs)')
  );
}

type Side = 'source' | 'destination';

interface Place {
  readonly host: Host;
  /** Where its guests leave from; undefined where they only come. */
  readonly source: Agent | undefined;
  destination: Agent | undefined;
  readonly vmmSocketFolder: string;
}

export interface SetUp {
  /** A network that reaches the guest from a third place. */
  readonly guestNet?: boolean;
  /** Guests also move back: both agents on both hosts. Default: only what is needed to move there. */
  readonly bothWays?: boolean;
  /** Of every destination agent. */
  readonly destination?: AgentOptions;
  /** Default: two network namespaces where possible. */
  readonly hosts?: 'best' | 'loopback';
  /** Environment of the agents, once there are hosts. */
  readonly agentEnv?: (hosts: Hosts) => Promise<NodeJS.ProcessEnv>;
}

/** Two hosts with their agents, and what was started on them. */
export class QemuHosts {
  readonly #t: Scope;
  readonly #places: Record<Side, Place>;
  readonly #setUp: SetUp;
  readonly hosts: Hosts;
  readonly folder: string;
  readonly net: GuestNet | undefined;
  readonly parts: QemuParts;
  #sockets = 0;

  private constructor(
    t: Scope,
    setUp: SetUp,
    made: { parts: QemuParts; hosts: Hosts; folder: string; net: GuestNet | undefined; places: Record<Side, Place> },
  ) {
    this.#t = t;
    this.#setUp = setUp;
    this.#places = made.places;
    this.hosts = made.hosts;
    this.folder = made.folder;
    this.net = made.net;
    this.parts = made.parts;
  }

  static async make(t: Scope, setUp: SetUp = {}): Promise<QemuHosts> {
    const lab = presentQemuLab();
    if (lab.reason !== undefined) throw new Error(lab.reason);
    const hosts = makeHosts(setUp.hosts);
    t.after(() => hosts.close());
    const folder = temporaryFolder(t);
    const net = setUp.guestNet === true ? makeGuestNet(hosts) : undefined;
    t.after(() => net?.close());
    const env = await setUp.agentEnv?.(hosts);
    const destinationOptions = env === undefined ? setUp.destination : { ...setUp.destination, env };
    const place = async (side: Side): Promise<Place> => {
      const vmmSocketFolder = join(folder, side);
      mkdirSync(vmmSocketFolder);
      const needed = (which: Side): boolean => setUp.bothWays === true || which === side;
      const [source, destination] = await Promise.all([
        needed('source') ? startSourceAgent(hosts[side], env === undefined ? {} : { env }) : undefined,
        needed('destination') ? startDestAgent(hosts[side], vmmSocketFolder, destinationOptions) : undefined,
      ]);
      const made: Place = { host: hosts[side], source, destination, vmmSocketFolder };
      // The one that is there then: it may have been started anew.
      t.after(() => Promise.all([made.source?.program.stop(), made.destination?.program.stop()]));
      return made;
    };
    const [source, destination] = await Promise.all([place('source'), place('destination')]);
    const places = { source, destination };
    return new QemuHosts(t, setUp, { parts: lab.parts, hosts, folder, net, places });
  }

  /** Of the way there. */
  get agents(): { readonly source: Agent; readonly destination: Agent } {
    const { source } = this.#places.source;
    if (!source) throw new Error('no guest leaves the host source');
    return { source, destination: this.#destinationAgent('destination') };
  }

  /** An image that both hosts see. */
  disk(name: string, sizeMiB: number): string {
    const path = join(this.folder, name);
    writeFileSync(path, '');
    truncateSync(path, sizeMiB << 20);
    return path;
  }

  /** A guest that works, on the host `source`. */
  async boot(machine: Omit<Machine, 'parts'>): Promise<Qemu> {
    const qemu = await this.start({ ...machine, role: 'source', host: this.hosts.source });
    await guestWorks(qemu);
    return qemu;
  }

  /** A QEMU that is gone when the test is. */
  async start(options: Omit<QemuOptions, 'parts' | 'folder'>): Promise<Qemu> {
    const qemu = await startQemu({ ...options, parts: this.parts, folder: this.folder });
    this.#t.after(() => qemu.stop());
    return qemu;
  }

  /** The QEMU that waits for the guest on a host, under the shim. */
  async await(machine: Omit<Machine, 'parts'>, side: Side = 'destination'): Promise<Awaiting> {
    const vmmSocketName = `vm${this.#sockets++}.sock`;
    const shim = { socket: join(this.#places[side].vmmSocketFolder, vmmSocketName), vm: 'guest' };
    const qemu = await this.start({ ...machine, role: 'destination', host: this.hosts[side], shim });
    return { qemu, vmmSocketName, side };
  }

  /** Starts `pagewake migrate qemu` on the host that the guest is on. */
  migrate(from: Pick<Qemu, 'qmpPath'>, to: Awaiting, options: MigrateOptions = {}): Run {
    const { sourceQmp = from.qmpPath, destinationQmp = to.qemu.qmpPath, flags = [], env = {} } = options;
    const here = this.#places[to.side === 'destination' ? 'source' : 'destination'];
    const there = this.#places[to.side];
    if (!here.source || !there.destination) throw new Error('guests of these hosts move only there, not back');
    const command = [
      ...[process.execPath, PAGEWAKE, 'migrate', 'qemu', '--json', '--insecure-plaintext'],
      ...['--source', here.source.address, '--destination', there.destination.address],
      ...['--source-qmp', `unix:${sourceQmp}`, '--dest-qmp', `unix:${destinationQmp}`],
      ...['--dest-migrate-address', `${there.host.address}:0`],
      ...['--vm', 'guest', '--vmm-socket-name', to.vmmSocketName],
      ...flags,
    ];
    const cli = new Program('pagewake migrate qemu', here.host, command, env);
    this.#t.after(() => cli.stop());
    return new Run(cli);
  }

  /** The agent that receives on a host, killed as by the kernel. */
  async killDestinationAgent(side: Side): Promise<void> {
    const { program } = this.#destinationAgent(side);
    program.signal('SIGKILL');
    await program.exited;
  }

  /** The same again: folder, port, flags. */
  async restartDestinationAgent(side: Side): Promise<void> {
    const port = Number(this.#destinationAgent(side).address.split(':').at(-1));
    const { host, vmmSocketFolder } = this.#places[side];
    this.#places[side].destination = await startDestAgent(host, vmmSocketFolder, { ...this.#setUp.destination, port });
  }

  #destinationAgent(side: Side): Agent {
    const agent = this.#places[side].destination;
    if (!agent) throw new Error(`no guest comes to the host ${side}`);
    return agent;
  }
}

export interface Awaiting {
  readonly qemu: Qemu;
  readonly vmmSocketName: string;
  readonly side: Side;
}

export interface MigrateOptions {
  /** Instead of QEMU's own. */
  readonly sourceQmp?: string;
  readonly destinationQmp?: string;
  readonly flags?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

export interface Result {
  readonly summary: MigrationSummary;
  readonly downtimeMs: number;
  readonly line: JsonLine;
}

export interface Failure {
  readonly code: number;
  readonly outcome: string;
  readonly reason: string;
  readonly message: string;
}

/** A `pagewake migrate` that runs. */
export class Run {
  readonly cli: Program;

  constructor(cli: Program) {
    this.cli = cli;
  }

  /** The destination agent says so: "held", "filling", … */
  async reaches(phase: string): Promise<MigrationSummary> {
    const line = await this.cli.waitFor(
      `phase ${phase} on the destination agent`,
      (l) => l['type'] === 'progress' && (l['migration'] as MigrationSummary).phase === phase,
      MIGRATION_MS,
    );
    return line['migration'] as MigrationSummary;
  }

  /** The guest runs on the destination. */
  async moves(to: Qemu): Promise<void> {
    const failed = this.cli.exited.then((code) => {
      if (code !== 0) throw new Error(`pagewake migrate ended with ${code}: ${this.cli.stderr.trim()}`);
    });
    await Promise.race([to.qmp.waitFor('RESUME', undefined, MIGRATION_MS), failed]);
  }

  /** @throws Error with its own words where it fails */
  async result(): Promise<Result> {
    const code = await this.cli.exited;
    const line = this.cli.lines.findLast((l) => l['type'] === 'result');
    if (code !== 0 || !line) throw new Error(`pagewake migrate ended with ${code}: ${this.cli.stderr.trim()}`);
    return { summary: line['migration'] as MigrationSummary, downtimeMs: Number(line['downtimeMs']), line };
  }

  /** @throws Error where it succeeds */
  async failure(): Promise<Failure> {
    const code = await this.cli.exited;
    const line = this.cli.lines.findLast((l) => l['type'] === 'failed');
    if (code === 0 || !line) throw new Error(`pagewake migrate ended with ${code}: ${this.cli.stderr.trim()}`);
    const { outcome, reason, message } = line['error'] as Partial<Record<keyof Failure, string>>;
    return { code, outcome: outcome ?? '', reason: reason ?? '', message: message ?? '' };
  }
}

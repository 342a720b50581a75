/** The product's side: real agents as processes on loopback, told by their own RPCs what an orchestrator would tell them. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectDestination, connectSource, type DestinationAgent, type SourceAgent } from '@pagewake/orchestrator';
import { MigrationMode, MigrationPhase, type Migration } from '@pagewake/proto';
import { startDestAgent, startSourceAgent, type Agent } from '../../e2e/lib/agents.ts';
import type { Host } from '../../e2e/lib/hosts.ts';
import { LOOPBACK, type Filler, type PageServer } from './floor.ts';

const PAGE_BYTES = 4096;
/** Many at once, on a host that is busy, may take longer than a call has by default. */
const PREPARE = { timeoutMs: 60_000 };
const END_MS = 20_000;
const END_POLL_MS = 20;
const FINAL: readonly MigrationPhase[] = [MigrationPhase.COMPLETED, MigrationPhase.FAILED, MigrationPhase.CANCELLED];

/** A migration that waits for its VMM. */
export interface Prepared {
  readonly migrationId: string;
  readonly vmId: string;
  readonly generation: number;
  readonly filler: Filler;
  /** When `Start` was called, and how long its answer took. `process.hrtime` is the clock of the floor's programs. */
  readonly startCalledNs: number;
  readonly startMs: number;
}

/** Which memory is the VM's. */
export interface Guest {
  /** Default: that of the options. */
  readonly server?: PageServer;
  /** Its first page in the server's memory. */
  readonly firstPage?: number;
}

export interface ProductOptions {
  /** Whose memory is the guest's. */
  readonly server: PageServer;
  /** For the sockets on which memory is handed over. */
  readonly folder: string;
  readonly source?: readonly string[];
  readonly destination?: readonly string[];
  /** Where the destination agent runs; the source agent is where the server is. */
  readonly destinationHost?: Host;
}

const nowNs = (): number => Number(process.hrtime.bigint());

async function timed(start: () => Promise<Agent>): Promise<readonly [Agent, number]> {
  const beginNs = nowNs();
  const agent = await start();
  return [agent, (nowNs() - beginNs) / 1e6];
}

/** One pair of agents; any number of migrations between them. */
export class Product {
  readonly #memoryPath: string;
  readonly #agents: readonly [source: Agent, destination: Agent];
  readonly #source: SourceAgent;
  readonly #destination: DestinationAgent;
  /** From the beginning of each process to its word that it listens. */
  readonly startMs: readonly [source: number, destination: number];
  #migrations = 0;

  private constructor(
    memoryPath: string,
    [source, sourceMs]: readonly [Agent, number],
    [destination, destinationMs]: readonly [Agent, number],
  ) {
    this.#memoryPath = memoryPath;
    this.startMs = [sourceMs, destinationMs];
    this.#agents = [source, destination];
    // The link between two namespaces of this machine is nobody else's.
    this.#source = connectSource({ address: source.address, insecurePlaintext: true });
    this.#destination = connectDestination({ address: destination.address, insecurePlaintext: true });
  }

  static async start(options: ProductOptions): Promise<Product> {
    const { server, folder, destinationHost = LOOPBACK } = options;
    const source = await timed(() => startSourceAgent(server.host, { flags: options.source ?? [] }));
    try {
      const flags = options.destination ?? [];
      const destination = await timed(() => startDestAgent(destinationHost, folder, { flags }));
      return new Product(server.memoryPath, source, destination);
    } catch (error) {
      await source[0].program.stop();
      throw error;
    }
  }

  /** Process ids. */
  get pids(): readonly [source: number, destination: number] {
    const [source, destination] = this.#agents;
    return [source.program.pid, destination.program.pid];
  }

  async stop(): Promise<void> {
    this.#source.close();
    this.#destination.close();
    await Promise.all(this.#agents.map((agent) => agent.program.stop()));
  }

  /** A VM of pages of the server's, registered and paused, whose migration waits for its VMM. */
  async prepare(pageCount: number, { server, firstPage = 0 }: Guest = {}): Promise<Prepared> {
    const vmId = `bench-${this.#migrations++}`;
    const token = randomBytes(32);
    const memory = {
      kind: {
        case: 'file' as const,
        value: {
          path: server?.memoryPath ?? this.#memoryPath,
          regions: [{ geometry: { pageSizeBytes: PAGE_BYTES, pageCount }, fileOffset: BigInt(firstPage * PAGE_BYTES) }],
        },
      },
    };
    const { generation } = await this.#source.call((c, o) => c.register({ vmId, memory, token }, o), PREPARE);
    await this.#source.call((c, o) => c.setPaused({ vmId, generation, paused: true }, o), PREPARE);
    const startCalledNs = nowNs();
    const { migration } = await this.#destination.call(
      (c, o) =>
        c.start({ vmId, generation, token, sourceAddress: this.#source.address, mode: MigrationMode.POST_COPY }, o),
      PREPARE,
    );
    if (!migration) throw new Error('the destination agent answered Start without a migration');
    const { migrationId, vmmSocket } = migration;
    const startMs = (nowNs() - startCalledNs) / 1e6;
    return { migrationId, vmId, generation, filler: ['agent', `${vmmSocket}:${vmId}`], startCalledNs, startMs };
  }

  async get({ migrationId }: Prepared): Promise<Migration> {
    const { migration } = await this.#destination.call((c, o) => c.get({ migrationId }, o));
    if (!migration) throw new Error(`the destination agent answered Get without the migration ${migrationId}`);
    return migration;
  }

  /** No page is asked for but those that are touched. */
  async pause({ migrationId }: Prepared): Promise<void> {
    await this.#destination.call((c, o) => c.pause({ migrationId }, o));
  }

  /** Waits for the agent to see that the VMM is gone, and has the source forget the VM. */
  async end(prepared: Prepared): Promise<Migration> {
    const deadline = performance.now() + END_MS;
    let migration = await this.get(prepared);
    while (!FINAL.includes(migration.phase)) {
      if (performance.now() > deadline)
        throw new Error(
          `a migration whose VMM has ended is still ${MigrationPhase[migration.phase]} after ${END_MS} ms`,
        );
      await sleep(END_POLL_MS);
      migration = await this.get(prepared);
    }
    const { vmId, generation } = prepared;
    await this.#source.call((c, o) => c.release({ vmId, generation, force: true }, o));
    return migration;
  }
}

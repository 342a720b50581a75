/** The product's side: real agents as processes on loopback, told by their own RPCs what an orchestrator would tell them. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectDestination, connectSource, type DestinationAgent, type SourceAgent } from '@pagewake/orchestrator';
import { MigrationMode, MigrationPhase, type Migration } from '@pagewake/proto';
import { startDestAgent, startSourceAgent, type Agent } from '../../e2e/lib/agents.ts';
import { LOOPBACK, type Filler, type PageServer } from './floor.ts';

const PAGE_BYTES = 4096;
/** The zero search of the source is part of SetPaused. */
const SCAN_MS = 60_000;
const END_MS = 20_000;
const END_POLL_MS = 20;
const FINAL: readonly MigrationPhase[] = [MigrationPhase.COMPLETED, MigrationPhase.FAILED, MigrationPhase.CANCELLED];

/** A migration that waits for its VMM. */
export interface Prepared {
  readonly migrationId: string;
  readonly vmId: string;
  readonly generation: number;
  readonly filler: Filler;
}

export interface ProductOptions {
  /** Whose memory is the guest's. */
  readonly server: PageServer;
  /** For the sockets on which memory is handed over. */
  readonly folder: string;
  readonly source?: readonly string[];
  readonly destination?: readonly string[];
}

/** One pair of agents; any number of migrations between them. */
export class Product {
  readonly #memoryPath: string;
  readonly #agents: readonly [source: Agent, destination: Agent];
  readonly #source: SourceAgent;
  readonly #destination: DestinationAgent;
  #migrations = 0;

  private constructor(memoryPath: string, source: Agent, destination: Agent) {
    this.#memoryPath = memoryPath;
    this.#agents = [source, destination];
    this.#source = connectSource({ address: source.address });
    this.#destination = connectDestination({ address: destination.address });
  }

  static async start(options: ProductOptions): Promise<Product> {
    const source = await startSourceAgent(LOOPBACK, { flags: options.source ?? [] });
    try {
      const destination = await startDestAgent(LOOPBACK, options.folder, { flags: options.destination ?? [] });
      return new Product(options.server.memoryPath, source, destination);
    } catch (error) {
      await source.program.stop();
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

  /** A VM of the server's first pages, registered and paused, whose migration waits for its VMM. */
  async prepare(pageCount: number): Promise<Prepared> {
    const vmId = `bench-${this.#migrations++}`;
    const token = randomBytes(32);
    const memory = {
      kind: {
        case: 'file' as const,
        value: {
          path: this.#memoryPath,
          regions: [{ geometry: { pageSizeBytes: PAGE_BYTES, pageCount }, fileOffset: 0n }],
        },
      },
    };
    const { generation } = await this.#source.call((c, o) => c.register({ vmId, memory, token }, o));
    await this.#source.call((c, o) => c.setPaused({ vmId, generation, paused: true }, o), { timeoutMs: SCAN_MS });
    const { migration } = await this.#destination.call((c, o) =>
      c.start({ vmId, generation, token, sourceAddress: this.#source.address, mode: MigrationMode.POST_COPY }, o),
    );
    if (!migration) throw new Error('the destination agent answered Start without a migration');
    const { migrationId, vmmSocket } = migration;
    return { migrationId, vmId, generation, filler: ['agent', `${vmmSocket}:${vmId}`] };
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

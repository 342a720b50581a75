/** The product's side: real agents as processes on loopback, told by their own RPCs what an orchestrator would tell them. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectDestination, connectSource, type DestinationAgent, type SourceAgent } from '@pagewake/orchestrator';
import { MigrationMode, MigrationPhase, type Migration } from '@pagewake/proto';
import { startDestAgent, startSourceAgent, type Agent } from '../../e2e/lib/agents.ts';
import { fill, touchesOf, walk, type Filler, type Walks } from './destination.ts';
import { LOOPBACK, type PageServer } from './floor.ts';
import type { Sizes } from './options.ts';

const PAGE_BYTES = 4096;
/** The zero search of the source is part of SetPaused. */
const SCAN_MS = 60_000;
const END_MS = 20_000;
const END_POLL_MS = 20;
/** A touch that a neighbour's fault has brought along would be no demand fault. */
const ALONE = ['--fault-window-pages', '1'];
const FINAL: readonly MigrationPhase[] = [MigrationPhase.COMPLETED, MigrationPhase.FAILED, MigrationPhase.CANCELLED];

/** A migration that waits for its VMM. */
interface Prepared {
  readonly migrationId: string;
  readonly vmId: string;
  readonly generation: number;
  readonly filler: Filler;
}

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

  /** @param folder for the sockets on which memory is handed over */
  static async start(server: PageServer, folder: string): Promise<Product> {
    const source = await startSourceAgent(LOOPBACK);
    try {
      return new Product(server.memoryPath, source, await startDestAgent(LOOPBACK, folder, { flags: ALONE }));
    } catch (error) {
      await source.program.stop();
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.#source.close();
    this.#destination.close();
    await Promise.all(this.#agents.map((agent) => agent.program.stop()));
  }

  /** Faults alone: prefetch is paused as soon as the memory is served. */
  async walk(sizes: Sizes): Promise<Walks> {
    const prepared = await this.#prepare(sizes.walkPages);
    const walks = await walk(prepared.filler, sizes, {
      ready: async () => {
        await this.#destination.call((c, o) => c.pause({ migrationId: prepared.migrationId }, o));
      },
      finished: async () => this.#expectDemandFaults(prepared, touchesOf(sizes)),
    });
    await this.#end(prepared);
    return walks;
  }

  /** Prefetch alone: nobody touches. */
  async fill(sizes: Sizes): Promise<number> {
    const prepared = await this.#prepare(sizes.fillPages);
    const megabytesPerSecond = await fill(prepared.filler, sizes);
    const { phase } = await this.#end(prepared);
    if (phase !== MigrationPhase.COMPLETED)
      throw new Error(`the bulk fill ended in phase ${MigrationPhase[phase]} instead of COMPLETED`);
    return megabytesPerSecond;
  }

  async #prepare(pageCount: number): Promise<Prepared> {
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

  async #get({ migrationId }: Prepared): Promise<Migration> {
    const { migration } = await this.#destination.call((c, o) => c.get({ migrationId }, o));
    if (!migration) throw new Error(`the destination agent answered Get without the migration ${migrationId}`);
    return migration;
  }

  /** A page that had come by itself would be measured as a very fast fault: then the figures are worth nothing. */
  async #expectDemandFaults(prepared: Prepared, touches: number): Promise<void> {
    const { faults } = await this.#get(prepared);
    const fromSource = Number(faults?.fromSource ?? 0n);
    if (fromSource !== touches)
      throw new Error(
        `${fromSource} faults needed the source, ${touches} pages were touched: the stalls are not comparable`,
      );
  }

  /** Waits for the agent to see that the VMM is gone, and has the source forget the VM. */
  async #end(prepared: Prepared): Promise<Migration> {
    const deadline = performance.now() + END_MS;
    let migration = await this.#get(prepared);
    while (!FINAL.includes(migration.phase)) {
      if (performance.now() > deadline)
        throw new Error(
          `a migration whose VMM has ended is still ${MigrationPhase[migration.phase]} after ${END_MS} ms`,
        );
      await sleep(END_POLL_MS);
      migration = await this.#get(prepared);
    }
    const { vmId, generation } = prepared;
    await this.#source.call((c, o) => c.release({ vmId, generation, force: true }, o));
    return migration;
  }
}

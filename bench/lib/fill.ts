/** One life of floor/fill: memory that comes while nobody touches it, and is looked at byte by byte afterwards. */
import { join } from 'node:path';
import type { Host } from '../../e2e/lib/hosts.ts';
import { Program } from '../../e2e/lib/processes.ts';
import { BUILD, LOOPBACK, MEMORY_MS, orStop, type Content, type Filler, type PageServer } from './floor.ts';

const FILL_MS = 180_000;
const VERIFY_MS = 120_000;

export const PAGE_BYTES = 4096;

export interface FillOptions {
  readonly pages: number;
  readonly content: Content;
  /** Of the content's law, where it is not page 0. */
  readonly firstPage?: number;
  readonly filler: Filler;
  readonly host?: Host;
}

/** Times are of the clock that all processes of this machine share. */
export interface Filled {
  readonly beginNs: number;
  /** From when on faults were served. */
  readonly servedNs: number;
  readonly endNs: number;
  /** Of the filling program itself: the floor's work, and nothing of the product's. */
  readonly cpuSeconds: number;
}

export const floorOf = ({ host, port }: PageServer): Filler => ['floor', `${host.address}:${port}`];

export const seconds = ({ beginNs, endNs }: Filled): number => (endNs - beginNs) / 1e9;

/** 10^6 bytes of guest memory a second, from asking for it to the last byte of it. */
export const megabytesPerSecond = (pages: number, filled: Filled): number =>
  (pages * PAGE_BYTES) / 1e6 / seconds(filled);

export class Fill {
  readonly #program: Program;

  private constructor(program: Program) {
    this.#program = program;
  }

  /** Has its memory; nothing was asked for yet. */
  static async start({ pages, content, firstPage = 0, filler, host = LOOPBACK }: FillOptions): Promise<Fill> {
    const command = [join(BUILD, 'fill'), String(pages), `${content}:${firstPage}`, ...filler];
    const program = new Program('fill', host, command);
    await orStop(
      program,
      program.waitFor('its memory', (line) => line['event'] === 'ready', MEMORY_MS),
    );
    return new Fill(program);
  }

  begin(): void {
    this.#program.signal('SIGUSR1');
  }

  async filled(): Promise<Filled> {
    const line = await this.#program.waitFor('the memory to be whole', (l) => l['event'] === 'filled', FILL_MS);
    const number = (key: keyof Filled): number => Number(line[key]);
    return {
      beginNs: number('beginNs'),
      servedNs: number('servedNs'),
      endNs: number('endNs'),
      cpuSeconds: number('cpuSeconds'),
    };
  }

  /** @throws Error that names the page, where one is wrong */
  async verify(): Promise<void> {
    this.#program.signal('SIGUSR1');
    await this.#program.waitFor('every page to be right', (line) => line['event'] === 'verified', VERIFY_MS);
  }

  async stop(): Promise<void> {
    await this.#program.stop();
  }
}

/** All of it, one after the other. */
export async function fill(options: FillOptions): Promise<Filled> {
  const program = await Fill.start(options);
  try {
    program.begin();
    const filled = await program.filled();
    await program.verify();
    return filled;
  } finally {
    await program.stop();
  }
}

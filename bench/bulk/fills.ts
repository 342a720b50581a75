/** One fill of either side: how fast, for how much CPU, with how many bytes on the wire. */
import { MigrationPhase } from '@pagewake/proto';
import type { Host } from '../../e2e/lib/hosts.ts';
import { fill, floorOf, megabytesPerSecond, PAGE_BYTES } from '../lib/fill.ts';
import { LOOPBACK, type Content, type PageServer } from '../lib/floor.ts';
import type { Product } from '../lib/product.ts';
import { processSeconds } from '../qemu/cpu.ts';

const GIB = 2 ** 30;

export interface BulkSample {
  /** 10^6 bytes of guest memory a second, whatever went over the wire. */
  readonly megabytesPerSecond: number;
  /** Seconds for a GiB of guest memory: of the source's side, of the destination's. */
  readonly cpuOfSource: number;
  readonly cpuOfDestination: number;
  /** For each byte of guest memory, both directions. */
  readonly wireBytes: number;
}

export interface Filling {
  readonly server: PageServer;
  readonly content: Content;
  readonly pages: number;
  /** Where the memory is that is filled. */
  readonly host?: Host;
}

const gib = (pages: number): number => (pages * PAGE_BYTES) / GIB;

export async function fillFloor({ server, content, pages, host = LOOPBACK }: Filling): Promise<BulkSample> {
  const before = processSeconds(server.program.pid);
  const filled = await fill({ pages, content, filler: floorOf(server), host });
  return {
    megabytesPerSecond: megabytesPerSecond(pages, filled),
    cpuOfSource: (processSeconds(server.program.pid) - before) / gib(pages),
    cpuOfDestination: filled.cpuSeconds / gib(pages),
    // Requests of 8 bytes, and raw pages.
    wireBytes: 1,
  };
}

/** CPU from Register until the VM is forgotten: with the start of the lanes' threads. */
export async function fillProduct(product: Product, filling: Filling): Promise<BulkSample> {
  const { server, content, pages, host = LOOPBACK } = filling;
  const cpu = (): readonly number[] => product.pids.map(processSeconds);
  const [sourceBefore = 0, destinationBefore = 0] = cpu();
  const prepared = await product.prepare(pages, { server });
  const filled = await fill({ pages, content, filler: prepared.filler, host });
  const { phase, progress } = await product.end(prepared);
  if (phase !== MigrationPhase.COMPLETED)
    throw new Error(`the bulk fill ended in phase ${MigrationPhase[phase]} instead of COMPLETED`);
  const [source = 0, destination = 0] = cpu();
  return {
    megabytesPerSecond: megabytesPerSecond(pages, filled),
    cpuOfSource: (source - sourceBefore) / gib(pages),
    cpuOfDestination: (destination - destinationBefore) / gib(pages),
    wireBytes: Number(progress?.wireBytes ?? 0n) / (pages * PAGE_BYTES),
  };
}

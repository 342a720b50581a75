/**
 * What the source adds to the blackout: from SetPaused(true) until a destination that waits has the whole list. Real agent, real gRPC, one process.
 *
 *   node source-agent/test/measure.ts [MiB]
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLogger, openChannel, startServer, startTelemetry } from '@pagewake/agent-kit';
import { MemoryFile, monotonicMs } from '@pagewake/native';
import { createClient, PageService, SourceService } from '@pagewake/proto';
import { sourceServices } from '../src/adapters/grpc/services.ts';
import type { Memory } from './reading.ts';

const PAGE = 4096;
const MIB = 1 << 20;
const sizeMib = Number(process.argv[2] ?? 1024);
const pages = (sizeMib * MIB) / PAGE;
const ROUNDS = 7;

const folder = mkdtempSync('/dev/shm/pagewake-measure-');
const log = createLogger('measure', 'silent');
const telemetry = await startTelemetry({ serviceName: 'measure', log });
const listen = '127.0.0.1:0';
const config = { listen, bulkPort: 0, compression: 'off', faultCompression: false, faultSpinUs: 0 } as const;
const agent = sourceServices(config, log, telemetry);
const server = await startServer({ listen, services: agent.services });
const channel = openChannel(server.address);
const source = createClient(SourceService, channel);
const destination = createClient(PageService, channel);
const token = Buffer.alloc(32, 1);

/** A file of which `isData(page)` is written. */
function tmpfsFile(name: string, isData: (page: number) => boolean): { path: string; file: MemoryFile } {
  const path = join(folder, name);
  writeFileSync(path, '');
  truncateSync(path, sizeMib * MIB);
  const file = MemoryFile.open(path, { write: true });
  const data = Buffer.alloc(PAGE, 7);
  for (let page = 0; page < pages; page++) if (isData(page)) file.write(data, 0, PAGE, page * PAGE);
  return { path, file };
}

const shared = (path: string): NonNullable<Memory> => ({
  kind: { case: 'file', value: { path, regions: [{ geometry: { pageSizeBytes: PAGE, pageCount: pages } }] } },
});

const median = (numbers: number[]): number => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0;

async function measure(
  what: string,
  memory: NonNullable<Memory>,
  beforePause?: (round: number) => void,
): Promise<void> {
  const found: { register: number; look: number; call: number; told: number; holes: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const began = monotonicMs();
    const { generation } = await source.register({ vmId: what, token, memory });
    const register = monotonicMs() - began;
    const stream = destination.open({
      protocolVersion: 1,
      vmId: what,
      generation,
      token,
      destinationId: 'd',
      waitUntilPaused: true,
    });
    const accepted = new Promise((resolve) => stream.once('data', resolve));
    const told = new Promise<number>((resolve) => stream.once('end', () => resolve(monotonicMs())));
    await accepted;
    beforePause?.(round);
    const paused = monotonicMs();
    const answer = await source.setPaused({ vmId: what, generation, paused: true });
    const call = monotonicMs() - paused;
    found.push({ register, look: answer.scanMs, call, told: (await told) - paused, holes: Number(answer.zeroPages) });
    await source.release({ vmId: what, force: true });
  }
  const of = (key: keyof (typeof found)[number]): string =>
    median(found.map((one) => one[key]))
      .toFixed(2)
      .padStart(8);
  const share = ((Number(of('holes')) / pages) * 100).toFixed(0);
  console.log(
    `${what.padEnd(44)} register ${of('register')}   look ${of('look')}   SetPaused ${of('call')}   told ${of('told')} ms   ${share} % told as zero`,
  );
}

console.log(`${String(sizeMib)} MiB, medians of ${String(ROUNDS)}:`);
// 40 % holes in stretches as a Linux guest has them: most of them long.
const typical = tmpfsFile('typical', (page) => page % 5120 < 3072);
await measure('tmpfs, 40 % holes, long ones', shared(typical.path));
await measure('the same, holes filled at random meanwhile', shared(typical.path), (round) => {
  for (let i = 0; i < 1000; i++)
    typical.file.write(Buffer.of(1), 0, 1, Math.floor((pages / ROUNDS) * (round + Math.random())) * PAGE);
});
await measure('tmpfs, 8 pages data, 8 pages hole', shared(tmpfsFile('cut', (page) => page % 16 < 8).path));
const every = Math.max(2, Math.floor(pages / 100_000));
await measure(`tmpfs, a hole every ${String(every)} pages`, shared(tmpfsFile('many', (page) => page % every > 0).path));

await agent.close();
channel.close();
await server.shutdown(0);
rmSync(folder, { recursive: true });
process.exit(0);

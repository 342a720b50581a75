/**
 * The numbers of docs/kernel.md, on this machine: `node scripts/run.mjs native/test/measure.ts`. No test: nothing here can fail for being slow.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  checksum,
  MemoryFile,
  monotonicMs,
  PageLedger,
  Uffd,
  UFFD_EVENT_FIELDS,
  UnixListener,
  zeroRuns,
} from '../ts/index.ts';

const PAGE_BYTES = 4096;
const MIB = 1024 * 1024;
const SIZE_BYTES = 256 * MIB;
const PAGES = SIZE_BYTES / PAGE_BYTES;

function line(what: string, value: string): void {
  console.log(`${what.padEnd(58)} ${value}`);
}

/** The best of three: what else runs here only makes it slower. */
function best(rounds: number, work: () => void): number {
  let fastest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3; i++) {
    const start = monotonicMs();
    for (let round = 0; round < rounds; round++) work();
    fastest = Math.min(fastest, (monotonicMs() - start) / rounds);
  }
  return fastest;
}

const ns = (ms: number): string => `${(ms * 1e6).toFixed(0)} ns`;
const us = (ms: number): string => `${(ms * 1e3).toFixed(2)} us`;
const rate = (bytes: number, ms: number): string => `${(bytes / MIB / (ms / 1e3)).toFixed(0)} MiB/s`;

function calls(): void {
  const ledger = PageLedger.create(PAGES);
  const waiters = new Uint32Array(64);
  let page = 0;
  line('a native call (monotonicMs)', ns(best(1_000_000, () => monotonicMs())));
  line(
    'ledger: fault + installed of a page',
    ns(
      best(PAGES / 4, () => {
        ledger.fault(page);
        ledger.installed(page++, 1, waiters);
      }),
    ),
  );
  ledger.close();
  const zeros = new Uint8Array(16 * MIB);
  line('checksum of 4 KiB', us(best(100_000, () => checksum(zeros, 0, PAGE_BYTES, 1, 2))));
  line(
    'zeroRuns over 16 MiB of zeros',
    rate(
      16 * MIB,
      best(10, () => zeroRuns(zeros, 0, 16 * MIB, PAGE_BYTES)),
    ),
  );
}

async function files(): Promise<void> {
  const source = Buffer.alloc(MIB, 0x5a);
  for (const size of [PAGE_BYTES, 64 * 1024, 256 * 1024]) {
    const file = MemoryFile.createMemfd('measure', SIZE_BYTES);
    let at = 0;
    const start = monotonicMs();
    for (; at < SIZE_BYTES; at += size) file.write(source, 0, size, at);
    line(`write() to an empty memfd, ${size / 1024} KiB a call`, rate(SIZE_BYTES, monotonicMs() - start));
    file.close();
  }
  const file = MemoryFile.createMemfd('measure', SIZE_BYTES);
  for (let at = 0; at < SIZE_BYTES; at += 2 * MIB) file.write(source, 0, MIB, at);
  const holes = await file.findHoles(0, SIZE_BYTES, PAGE_BYTES);
  const start = monotonicMs();
  file.stillHoles(holes, PAGE_BYTES);
  const oneUs = ((monotonicMs() - start) * 1000) / (holes.length / 2);
  line('stillHoles of a memfd, holes of 1 MiB', `${oneUs.toFixed(2)} us a hole`);
  file.close();
}

interface Target {
  say(command: string): void;
  /** Calls back for the next answer. */
  onAnswer(callback: (line: string) => void): void;
  readonly uffd: Uffd;
  readonly address: number;
  close(): void;
}

/** A process that touches. */
async function target(): Promise<Target> {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-measure-'));
  const socket = join(folder, 's');
  const { promise, resolve } = Promise.withResolvers<{ address: number; fds: number[] }>();
  const listener = UnixListener.listen(socket, (connection) => {
    connection.onData((data, fds) => {
      connection.close();
      resolve({ address: Number(data.toString()), fds });
    });
  });
  const child = spawn(fileURLToPath(new URL('../build/Release/pagewake_toucher', import.meta.url)));
  child.stdin.write(`map memfd ${PAGES} 1 0 ${socket}\n`);
  const { address, fds } = await promise;
  listener.close();
  const uffd = Uffd.adopt(fds[0] ?? -1);
  const answers = createInterface({ input: child.stdout });
  // The answer to `map` may still be on its way.
  await once(answers, 'line');
  return {
    say: (command) => void child.stdin.write(`${command}\n`),
    onAnswer: (callback) => void answers.once('line', callback),
    uffd,
    address,
    close: () => {
      uffd.close();
      child.kill();
      rmSync(folder, { recursive: true });
    },
  };
}

async function faults(): Promise<void> {
  const { uffd, address, ...rest } = await target();
  const source = Buffer.alloc(MIB, 0x5a);
  let at = address;
  for (const size of [PAGE_BYTES, 64 * 1024, 256 * 1024]) {
    const end = at + 64 * MIB;
    const start = monotonicMs();
    for (; at < end; at += size) uffd.copy(at, source, 0, size, true);
    line(`UFFDIO_COPY, ${size / 1024} KiB a call`, rate(64 * MIB, monotonicMs() - start));
  }
  // One thread that touches page after page: touch to resumed, with nothing but this process in between.
  const first = (at - address) / PAGE_BYTES;
  const events = new Float64Array(64 * UFFD_EVENT_FIELDS);
  uffd.poll(events, (count) => {
    for (let i = 0; i < count; i++) uffd.copy(events[i * UFFD_EVENT_FIELDS + 1] ?? 0, source, 0, PAGE_BYTES, true);
  });
  const { promise, resolve } = Promise.withResolvers<string>();
  rest.onAnswer(resolve);
  rest.say(`walk ${first} 8192`);
  const [p50 = 0, p99 = 0] = (await promise).split(' ').slice(1).map(Number);
  line('touch to resumed by poll + UFFDIO_COPY, p50 / p99', `${us(p50 / 1e6)} / ${us(p99 / 1e6)}`);
  uffd.stopPolling();
  rest.close();
  uffd.close();
}

calls();
await files();
await faults();

/** Guest memory of each kind with contents that a test can predict. Nothing here is a stand-in: files are files, processes processes. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { checksum, MemoryFile } from '@pagewake/native';
import { Encoding, type PageFrame } from '@pagewake/proto';
import { uncompressSync } from 'lz4-napi';

export const K4 = 4096;
export const M2 = 2 * 1024 * 1024;

/** Bytes of one 4 KiB page that no compressor can shrink, different for every number. */
export function noise(number: number): Buffer {
  const page = Buffer.alloc(K4);
  for (let at = 0; at < K4; at += 32) {
    createHash('sha256')
      .update(`${String(number)}:${String(at)}`)
      .digest()
      .copy(page, at);
  }
  return page;
}

/** A page that compresses well. */
export function prose(number: number): Buffer {
  return Buffer.alloc(K4, `page ${String(number)} says what every page says. `);
}

export interface TestFile {
  readonly path: string;
  write(offset: number, bytes: Uint8Array): void;
}

/** A real memfd, reached as an agent reaches a VMM's: through /proc/PID/fd. */
export function makeMemfd(t: TestContext, sizeBytes: number): TestFile {
  const file = MemoryFile.createMemfd('pagewake-test', sizeBytes);
  t.after(() => file.close());
  return {
    path: `/proc/${String(process.pid)}/fd/${String(file.fd)}`,
    write: (offset, bytes) => assert.equal(file.write(bytes, 0, bytes.length, offset).kind, 'done'),
  };
}

/** A sparse regular file. */
export function makeSnapshot(t: TestContext, sizeBytes: number): TestFile & { truncate(sizeBytes: number): void } {
  const dir = mkdtempSync(join(tmpdir(), 'pagewake-snapshot-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'memory.snap');
  const fd = openSync(path, 'w');
  t.after(() => closeSync(fd));
  truncateSync(path, sizeBytes);
  return {
    path,
    write: (offset, bytes) => assert.equal(writeSync(fd, bytes, 0, bytes.length, offset), bytes.length),
    truncate: (size) => truncateSync(path, size),
  };
}

export interface TestProcess {
  readonly pid: number;
  /** Page aligned; `pages` pages of 4 KiB follow. */
  readonly address: number;
  expected(page: number): Buffer;
  /** Kills it, and resolves once it is gone. */
  kill(): Promise<void>;
}

const GUEST = `
  const bytes = Buffer.alloc((Number(process.argv[1]) + 2) * 4096);
  for (let i = 0; i < bytes.length; i += 8) bytes.writeBigUInt64LE(0x5041474557414b45n ^ BigInt(i), i);
  console.log('ready');
  setInterval(() => bytes[0], 1 << 30);
`;

/** A process of its own whose memory holds words that say where in it they are. */
export async function startProcess(t: TestContext, pages: number): Promise<TestProcess> {
  const child: ChildProcess = spawn(process.execPath, ['-e', GUEST, '--', String(pages)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  t.after(async () => {
    child.kill('SIGKILL');
    await gone;
  });
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  const pid = child.pid ?? assert.fail('no pid');
  const start = findMemory(pid, word(0), (pages + 2) * K4);
  const address = Math.ceil(start / K4) * K4;
  return {
    pid,
    address,
    expected: (page) => {
      const from = address - start + page * K4;
      return Buffer.concat(Array.from({ length: K4 / 8 }, (_, i) => word(from + i * 8)));
    },
    kill: async () => {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

function word(offset: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(0x5041474557414b45n ^ BigInt(offset));
  return bytes;
}

/** Where in the process the words begin: a large buffer lies in an anonymous mapping of its own. */
function findMemory(pid: number, first: Buffer, sizeBytes: number): number {
  const mem = openSync(`/proc/${String(pid)}/mem`, 'r');
  try {
    for (const line of readFileSync(`/proc/${String(pid)}/maps`, 'latin1').split('\n')) {
      const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0/.exec(line) ?? [];
      if (from === undefined || to === undefined) continue;
      const start = Number.parseInt(from, 16);
      const length = Number.parseInt(to, 16) - start;
      if (length < sizeBytes || length > 64 * M2) continue;
      const content = Buffer.alloc(length);
      if (readSync(mem, content, 0, length, start) !== length) continue;
      const at = content.indexOf(Buffer.concat([first, word(8), word(16)]));
      if (at >= 0) return start + at;
    }
  } finally {
    closeSync(mem);
  }
  return assert.fail('the memory of the child was not found');
}

/** The decoded bytes of a frame, whose checksum is verified over them. */
export function decode(frame: PageFrame | undefined, pageSizeBytes = K4): Buffer {
  assert(frame !== undefined, 'a response without a frame');
  const length = frame.pageCount * pageSizeBytes;
  const { payload } = frame;
  const zero = frame.encoding === Encoding.ZERO;
  const bytes = zero
    ? Buffer.alloc(length)
    : frame.encoding === Encoding.LZ4
      ? uncompressSync(payload)
      : Buffer.from(payload);
  assert.equal(bytes.length, length);
  if (zero) assert.equal(payload.length, 0);
  const sum = zero
    ? checksum(new Uint8Array(0), 0, 0, frame.region, frame.firstPage)
    : checksum(bytes, 0, length, frame.region, frame.firstPage);
  assert.equal(frame.checksum, sum, `checksum of page ${String(frame.firstPage)} of region ${String(frame.region)}`);
  return bytes;
}

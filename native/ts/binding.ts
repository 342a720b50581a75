/**
 * The native side as it is: same names and order as in src/, numbers for outcomes, no rule and no default. Only the classes of
 * this folder use it.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { NativeError } from './errors.ts';
import type { Capability } from './types.ts';

/** An outcome as one number (src/outcome.h): decode it with `toOutcome`. */
export type PackedOutcome = number;
/** A descriptor that now belongs to the caller. */
export type OwnedFd = number;
/** A descriptor on its way from the call that opened it to the constructor that keeps it; closed where a worker is ended in between. */
export interface HandedFd {
  readonly handed: never;
}

export interface NativeUffd {
  fd(): number;
  duplicate(): HandedFd;
  handshake(features: number): readonly [features: number, ioctls: bigint];
  register(address: number, length: number, mode: number): number;
  unregister(address: number, length: number): PackedOutcome;
  copy(address: number, source: Uint8Array, offset: number, length: number, wake: boolean): PackedOutcome;
  copyRequested(
    address: number,
    source: Uint8Array,
    offset: number,
    length: number,
    ledgerId: number,
    page: number,
    bitmap: NativeUserfaultBitmap | null,
    bitmapPage: number,
  ): PackedOutcome;
  zeropage(address: number, length: number): PackedOutcome;
  continue(address: number, length: number): PackedOutcome;
  wake(address: number, length: number): PackedOutcome;
  poison(address: number, length: number): PackedOutcome;
  poll(
    events: Float64Array,
    onEvents: (count: number) => void,
    onClosed: (error: NativeError) => void,
    ledgerId: number,
    onRemoval: ((count: number) => void) | null,
  ): void;
  drain(events: Float64Array): number;
  stopPolling(): void;
  close(): void;
}

export interface NativeUserfaultBitmap {
  pageCount(): number;
  clear(first: number, count: number): void;
  isSet(page: number): boolean;
  countSet(): number;
  close(): void;
}

export interface NativeMemoryFile {
  fd(): number;
  sizeBytes(): number;
  kind(): string;
  writable(): boolean;
  write(source: Uint8Array, sourceOffset: number, length: number, fileOffset: number): PackedOutcome;
  writeRuns(source: Uint8Array, runs: Float64Array): PackedOutcome;
  read(into: Uint8Array, intoOffset: number, length: number, fileOffset: number): PackedOutcome;
  dataRuns(offset: number, length: number): Float64Array;
  punch(offset: number, length: number): PackedOutcome;
  store(source: Uint8Array, sourceOffset: number, length: number, fileOffset: number): PackedOutcome;
  load(into: Uint8Array, intoOffset: number, length: number, fileOffset: number): PackedOutcome;
  findHoles(offset: number, length: number, pageSizeBytes: number): Promise<Float64Array>;
  stillHoles(holes: Float64Array, pageSizeBytes: number): Float64Array;
  duplicate(): readonly [fd: HandedFd, vm: HandedFd | null];
  close(): void;
}

export interface NativeProcessMemory {
  read(into: Uint8Array, intoOffset: number, length: number, address: number): PackedOutcome;
  findHoles(address: number, length: number, pageSizeBytes: number): Promise<Float64Array>;
  stillHoles(holes: Float64Array, pageSizeBytes: number): Float64Array;
  alive(): boolean;
  close(): void;
}

export interface NativeUnixSocket {
  fd(): number;
  /** Null: nobody is waiting. */
  accept(): HandedFd | null;
  /** Bytes; 0 at the end of the stream; -1 where there is nothing. `fds`: their number, then they. */
  receive(into: Uint8Array, fds: Int32Array): number;
  /** Bytes; -1 where the peer is behind. */
  send(data: Uint8Array, offset: number, length: number, fds: Int32Array): number;
  watch(
    readable: boolean,
    writable: boolean,
    onReady: (status: number, readable: boolean, writable: boolean) => void,
  ): void;
  unwatch(): void;
  peer(): readonly [pid: number, uid: number, gid: number];
  close(): void;
}

export interface NativeLedger {
  id(): number;
  pageCount(): number;
  setZero(first: number, count: number): number;
  fault(page: number): number;
  claimRun(from: number, end: number, maxPages: number): number;
  installed(first: number, count: number, waiters: Uint32Array): number;
  foundZero(first: number, count: number, waiters: Uint32Array): number;
  resolved(page: number): boolean;
  release(first: number, count: number, waiters: Uint32Array): number;
  remove(first: number, count: number, waiters: Uint32Array): number;
  firstNotRequested(first: number, count: number): number;
  state(page: number): number;
  counts(into: Float64Array): void;
  isWhole(): boolean;
  waiters(into: Uint32Array, from: number): number;
  nextMissing(from: number, end: number): number;
  lockShared(): void;
  unlockShared(): void;
  lockExclusive(): void;
  unlockExclusive(): void;
  recover(first: number, count: number, seen: number): number;
  stage(): number;
  setStage(stage: number): void;
  diedReading(): boolean;
  close(): void;
}

export interface NativeLoopSpin {
  touch(): void;
  stop(): void;
  state(): number;
  close(): void;
}

export interface NativeBinding {
  setErrorClass(errorClass: typeof NativeError): void;
  readonly Uffd: {
    new (fd: OwnedFd | HandedFd): NativeUffd;
    open(device: boolean, userModeOnly: boolean): HandedFd;
  };
  readonly MemoryFile: {
    new (fd: OwnedFd | HandedFd, vm: HandedFd | null): NativeMemoryFile;
    createMemfd(name: string, sizeBytes: number, hugePages2MiB: boolean, sealable: boolean): HandedFd;
    open(path: string, write: boolean): HandedFd;
    createGuestMemfd(sizeBytes: number, flags: number): readonly [fd: HandedFd, vm: HandedFd];
  };
  readonly ProcessMemory: { new (pid: number): NativeProcessMemory };
  readonly UnixSocket: {
    new (fd: OwnedFd | HandedFd): NativeUnixSocket;
    listen(path: string): HandedFd;
    connect(path: string): HandedFd;
  };
  readonly LoopSpin: { new (forUs: number): NativeLoopSpin };
  readonly UserfaultBitmap: { new (fd: OwnedFd | HandedFd, pages: number): NativeUserfaultBitmap };
  readonly PageLedger: {
    new (idOrCreated: unknown): NativeLedger;
    /** An empty path: no file. */
    create(pageCount: number, path: string): unknown;
    open(path: string): unknown;
  };
  checksum(bytes: Uint8Array, offset: number, length: number, seedHigh: number, seedLow: number): number;
  zeroRuns(bytes: Uint8Array, offset: number, length: number, pageSizeBytes: number): Uint32Array;
  lz4Compress(bytes: Uint8Array, offset: number, length: number, into: Uint8Array, at: number, room: number): number;
  lz4Decompress(bytes: Uint8Array, offset: number, length: number, into: Uint8Array, at: number, room: number): boolean;
  monotonicMs(): number;
  sendNow(fd: number, bytes: Uint8Array): number;
  setThreadNice(nice: number): void;
  duplicateDescriptor(fd: number): OwnedFd;
  lockFile(path: string): OwnedFd;
  probe(): Capability[];
}

/** Another build of the addon than the usual one, e.g. the sanitizers' (native/README.md). */
const OVERRIDE = 'PAGEWAKE_NATIVE_ADDON';

function load(): NativeBinding {
  const path =
    process.env[OVERRIDE] ?? fileURLToPath(new URL('../build/Release/pagewake_native.node', import.meta.url));
  if (!existsSync(path)) throw new Error(`The native core is not built (${path} is missing): run \`npm run setup\`.`);
  const loaded = createRequire(import.meta.url)(path) as NativeBinding;
  loaded.setErrorClass(NativeError);
  return loaded;
}

export const binding: NativeBinding = load();

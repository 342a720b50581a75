/**
 * Code that nobody has run yet is slow code: the first fault of an agent's first VM cost it 1.6 to 1.9 ms of CPU inside the blackout, where later ones cost
 * 0.1 ms (docs/performance.md). So an agent that starts serves a thousand faults of nobody, from memory of its own.
 */
import type { BareConnection } from '@pagewake/agent-kit';
import { MemoryFile } from '@pagewake/native';
import { encodeFaultsRequest } from '@pagewake/proto';
import type { GuestImage } from '../../domain/guest-image.ts';
import { VmRegistry } from '../../domain/registry.ts';
import { FaultConnection, type FaultConnectionContext } from './connection.ts';

const PAGE_BYTES = 4096;
const PAGES = 64;
const FAULTS = 1000;
const VM_ID = 'rehearsal';
const NO_SESSION = new Uint8Array(0);

/** A connection whose other end takes everything at once. */
const PEER: BareConnection = {
  admit: () => undefined,
  write: (_bytes, taken) => {
    taken?.();
    return true;
  },
  end: () => undefined,
};

/** `context`: as connections get it, but for the registry. @returns how many faults were answered */
export function rehearseFaults(context: FaultConnectionContext): number {
  const registry = new VmRegistry(() => 1);
  const token = Buffer.alloc(32, 1);
  const { generation } = registry.register(VM_ID, token, new RehearsalImage());
  const wish = { vmId: VM_ID, generation, token, destinationId: VM_ID, regions: [] };
  const session = registry.open({ ...wish, waitUntilPaused: true });
  registry.setPaused(VM_ID, generation, true);
  const connection = new FaultConnection(PEER, { ...context, registry });
  connection.onMessage(Buffer.from(encodeFaultsRequest({ session: session.id, faults: [] })));
  for (let i = 0; i < FAULTS; i++) {
    const page = i % PAGES;
    const fault = { faultId: i, region: 0, page, pageCount: 0 };
    connection.onMessage(Buffer.from(encodeFaultsRequest({ session: NO_SESSION, faults: [fault] })));
    connection.onRead();
  }
  const { pagesServed } = session.vm;
  connection.onClose();
  registry.close();
  return pagesServed;
}

class RehearsalImage implements GuestImage {
  readonly regions = [{ pageSizeBytes: PAGE_BYTES, pageCount: PAGES }];
  readonly identity = VM_ID;
  readonly #file = MemoryFile.createMemfd('pagewake-rehearsal', PAGES * PAGE_BYTES);

  constructor() {
    this.#file.write(Buffer.alloc(PAGES * PAGE_BYTES, 1), 0, PAGES * PAGE_BYTES, 0);
  }

  readRun(_region: number, firstPage: number, pageCount: number, into: Uint8Array): void {
    this.#file.read(into, 0, pageCount * PAGE_BYTES, firstPage * PAGE_BYTES);
  }

  holes() {
    return [{ firstPages: new Uint32Array(0), pageCounts: new Uint32Array(0) }];
  }

  share() {
    return { kind: 'files' as const, regions: [] };
  }

  close(): void {
    this.#file.close();
  }
}

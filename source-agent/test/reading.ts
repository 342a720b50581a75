/** A served VM as its destination reads it: streams, requests, and a memory of every kind of page. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import {
  BulkRequestSchema,
  FaultsRequestSchema,
  type BulkRequest,
  type BulkResponse,
  type Encoding,
  type FaultsRequest,
  type FaultsResponse,
} from '@pagewake/proto';
import { startAgent, TOKEN, type TestAgent, type TestAgentOptions } from './agent.ts';
import { Conversation, readOpen } from './conversation.ts';
import { decode, K4, M2, makeMemfd, noise, prose } from './guests.ts';

export const ZERO_PAGE = Buffer.alloc(K4);

export type Memory = Parameters<TestAgent['serve']>[1];
export type FaultStream = Conversation<FaultsRequest, FaultsResponse>;
export type BulkStream = Conversation<BulkRequest, BulkResponse>;

export interface Reading {
  readonly agent: TestAgent;
  readonly generation: number;
  readonly session: Uint8Array;
  readonly faultPort: number;
  faults(): FaultStream;
  bulk(): BulkStream;
}

/** An agent that serves `memory`, opened by its destination. */
export async function read(t: TestContext, memory: Memory, options: TestAgentOptions = {}): Promise<Reading> {
  const agent = await startAgent(t, options);
  const generation = await agent.serve('vm', memory);
  const opened = await readOpen(
    agent.pages.open({ protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' }),
  );
  const { session, faultPort } = opened.accepted;
  return {
    agent,
    generation,
    session,
    faultPort,
    faults: () => {
      const stream: FaultStream = new Conversation(agent.pages.faults());
      stream.send(create(FaultsRequestSchema, { session }));
      return stream;
    },
    bulk: () => {
      const stream: BulkStream = new Conversation(agent.connect().bulk());
      stream.send(create(BulkRequestSchema, { session }));
      return stream;
    },
  };
}

export function region(pageSizeBytes: number, pageCount: number, fileOffset = 0) {
  return { geometry: { pageSizeBytes, pageCount }, fileOffset: BigInt(fileOffset) };
}

export function memfd(path: string, ...regions: ReturnType<typeof region>[]) {
  return { kind: { case: 'file' as const, value: { path, regions } } };
}

export const faults = (...asked: { faultId: number; region?: number; page: number }[]): FaultsRequest =>
  create(FaultsRequestSchema, { faults: asked });
export const range = (rangeId: number, firstPage: number, pageCount: number, region = 0): BulkRequest =>
  create(BulkRequestSchema, { rangeId, range: { region, firstPage, pageCount } });

/** 4 KiB pages: even ones noise, odd ones zero, but for the last, which is prose. Then two pages of 2 MiB, the second zero. */
export const SMALL_PAGES = 32;
export function mixedMemory(t: TestContext): Memory {
  const file = makeMemfd(t, 3 * M2);
  for (let page = 0; page < SMALL_PAGES; page += 2) file.write(page * K4, noise(page));
  file.write((SMALL_PAGES - 1) * K4, prose(SMALL_PAGES - 1));
  file.write(M2 + 5 * K4, noise(1000));
  return memfd(file.path, region(K4, SMALL_PAGES), region(M2, 2, M2));
}
export function mixedPage(page: number): Buffer {
  if (page === SMALL_PAGES - 1) return prose(page);
  return page % 2 === 0 ? noise(page) : ZERO_PAGE;
}

/** Reads a range to its end; returns its pages' bytes and the encodings of its frames. */
export async function readRange(lane: BulkStream, rangeId: number, firstPage: number, pageCount: number) {
  const pieces: Buffer[] = [];
  const encodings: Encoding[] = [];
  let next = firstPage;
  for (;;) {
    const response = await lane.next();
    assert.equal(response.rangeId, rangeId);
    assert.equal(response.frame?.firstPage, next, 'frames follow each other without gap');
    pieces.push(decode(response.frame));
    encodings.push(response.frame.encoding);
    next += response.frame.pageCount;
    if (response.rangeDone) break;
  }
  assert.equal(next, firstPage + pageCount, 'the frames cover the range exactly');
  return { bytes: Buffer.concat(pieces), encodings };
}

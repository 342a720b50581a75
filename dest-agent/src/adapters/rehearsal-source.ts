/** A source that is in the same thread and has only pages of one content: for a rehearsal, which needs messages as they are on the wire. */
import { checksumSeed } from '@pagewake/core';
import { checksum } from '@pagewake/native';
import type { FaultsResponse } from '@pagewake/proto';
import {
  decodeFaultsResponse,
  encodeFaultsRequest,
  Encoding,
  HEAD_ROOM_BYTES,
  putFrameHead,
} from '@pagewake/proto/hot';
import type { FaultOnWire, FaultRequests } from './page-source.ts';

const NO_SESSION = new Uint8Array(0);

export class RehearsalSource implements FaultRequests {
  readonly #pageSizeBytes: number;
  readonly #room: Buffer;
  #asked: FaultOnWire[] = [];

  constructor(pageSizeBytes: number, mostPages: number) {
    this.#pageSizeBytes = pageSizeBytes;
    this.#room = Buffer.alloc(HEAD_ROOM_BYTES + mostPages * pageSizeBytes, 1);
  }

  request(faults: readonly FaultOnWire[]): void {
    encodeFaultsRequest({ session: NO_SESSION, faults: [...faults] });
    this.#asked.push(...faults);
  }

  cancel(): void {
    this.#asked = [];
  }

  /** Answers what was asked, each with a message that was encoded and decoded. */
  answer(onResponse: (response: FaultsResponse) => void): void {
    for (const { faultId, region, page, pageCount } of this.#asked.splice(0)) {
      const pages = Math.max(1, pageCount);
      const payloadBytes = pages * this.#pageSizeBytes;
      const [high, low] = checksumSeed(region, page);
      const start = putFrameHead(this.#room, HEAD_ROOM_BYTES, payloadBytes, {
        id: faultId,
        done: false,
        region,
        firstPage: page,
        pageCount: pages,
        encoding: Encoding.RAW,
        checksum: checksum(this.#room, HEAD_ROOM_BYTES, payloadBytes, high, low),
        ...{ queueNs: 1000, readNs: 1000, encodeNs: 1000, receivedAtMs: 1 },
      });
      onResponse(decodeFaultsResponse(this.#room.subarray(start, HEAD_ROOM_BYTES + payloadBytes)));
    }
  }
}

/** A source agent's gRPC server under a script: honest where the script says nothing, and able to lie, to stall and to die. */
import { EventEmitter, once } from 'node:events';
import type { TestContext } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { startServer, toServiceError, type RunningServer } from '@pagewake/agent-kit';
import { OWN_LOOPBACK } from '@pagewake/agent-kit/testing';
import {
  BulkResponseSchema,
  Encoding,
  FaultsResponseSchema,
  implement,
  OpenResponseSchema,
  PageService,
  type BulkRequest,
  type BulkResponse,
  type CompleteRequest,
  type FaultsRequest,
  type FaultsResponse,
  type OpenRequest,
  type OpenResponse_AcceptedSchema,
  type PageFault,
  type PageFrame,
  type PageRun,
  type ZeroRunsSchema,
} from '@pagewake/proto';
import { frameOf, PAGE_BYTES } from './pages.ts';

export interface SourceScript {
  readonly pages: number;
  readonly zeroRuns?: readonly MessageInitShape<typeof ZeroRunsSchema>[];
  /** What Accepted says instead of the truth. */
  readonly accepted?: MessageInitShape<typeof OpenResponse_AcceptedSchema>;
  /** Its VM runs until `pause`. */
  readonly running?: boolean;
  /** As a source of before there was a Paused. */
  readonly withoutPaused?: boolean;
  /** In place of an Accepted: nothing. */
  readonly silent?: boolean;
  /** Runs at every Open, before anything is said; may throw what the source refuses with, or never resolve. */
  onOpen?(request: OpenRequest, count: number): void | Promise<void>;
  /** After the zero runs, before the stream ends. */
  beforeOpenEnds?(): void | Promise<void>;
  /** Undefined: no answer. */
  readonly fault?: (fault: PageFault) => PageFrame | undefined;
  /** Undefined: no answer. */
  readonly bulk?: (run: PageRun) => PageFrame | undefined;
  /** Runs as a stream of a lane comes in; returning true ends it at once. */
  endsStream?(lane: 'faults' | 'bulk', count: number): boolean;
  onComplete?(request: CompleteRequest): void | Promise<void>;
}

export interface FakeSource {
  readonly address: string;
  readonly opens: readonly OpenRequest[];
  readonly completes: readonly CompleteRequest[];
  readonly faults: readonly PageFault[];
  readonly ranges: readonly PageRun[];
  /** How many of each have come in so far. */
  readonly streams: { readonly faults: number; readonly bulk: number };
  /** Answers what it has kept back, now and from now on. */
  release(): void;
  /** Its VM stands still from now on. */
  pause(): void;
  /** As a crash: every connection is cut. */
  kill(): Promise<void>;
  /** On the same port. */
  restart(): Promise<void>;
}

export async function startFakeSource(t: TestContext, script: SourceScript): Promise<FakeSource> {
  const opens: OpenRequest[] = [];
  const completes: CompleteRequest[] = [];
  const faults: PageFault[] = [];
  const ranges: PageRun[] = [];
  const streams = { faults: 0, bulk: 0 };
  let released = false;
  let kept: (() => void)[] = [];
  let running = script.running ?? false;
  const paused = new EventEmitter().setMaxListeners(0);

  const zeroPages = (script.zeroRuns ?? []).reduce(
    (sum, runs) => sum + (runs.pageCounts ?? []).reduce((a, b) => a + b, 0),
    0,
  );

  const dataPages = BigInt(Math.max(0, script.pages - zeroPages));

  /** Answers, or keeps the question until there is an answer. */
  const answer = <Q>(
    question: Q,
    scripted: ((question: Q) => PageFrame | undefined) | undefined,
    honest: (question: Q) => PageFrame,
    send: (frame: PageFrame) => void,
  ): void => {
    const frame = scripted && !released ? scripted(question) : honest(question);
    if (frame) send(frame);
    else kept.push(() => send(honest(question)));
  };

  const service = () =>
    implement(
      PageService,
      {
        async open(call) {
          opens.push(call.request);
          await script.onOpen?.(call.request, opens.length);
          if (script.silent) return;
          const accepted = {
            protocolVersion: 1,
            session: Buffer.from(`session ${String(opens.length)}`),
            generation: call.request.generation,
            regions: [{ pageSizeBytes: PAGE_BYTES, pageCount: script.pages }],
            dataPages: running ? 0n : dataPages,
            ...script.accepted,
          };
          call.write(create(OpenResponseSchema, { part: { case: 'accepted', value: accepted } }));
          const gone = new AbortController();
          call.on('cancelled', () => gone.abort());
          if (running) await once(paused, 'paused', { signal: gone.signal }).catch(() => undefined);
          if (gone.signal.aborted) return;
          const final = { dataPages: script.accepted?.dataPages ?? dataPages };
          if (script.withoutPaused !== true)
            call.write(create(OpenResponseSchema, { part: { case: 'paused', value: final } }));
          for (const value of script.zeroRuns ?? [])
            call.write(create(OpenResponseSchema, { part: { case: 'zeroRuns', value } }));
          await script.beforeOpenEnds?.();
        },
        faults: (call: ServerDuplexStream<FaultsRequest, FaultsResponse>) => {
          streams.faults++;
          if (script.endsStream?.('faults', streams.faults) === true) return undefined;
          return conversation(call, (request) => {
            for (const fault of request.faults) {
              faults.push(fault);
              answer(
                fault,
                script.fault,
                ({ region, page, pageCount }) => frameOf(page, Math.max(1, pageCount), Encoding.RAW, { region }),
                (frame) => call.write(create(FaultsResponseSchema, { faultId: fault.faultId, frame })),
              );
            }
          });
        },
        bulk: (call: ServerDuplexStream<BulkRequest, BulkResponse>) => {
          streams.bulk++;
          if (script.endsStream?.('bulk', streams.bulk) === true) return undefined;
          return conversation(call, ({ rangeId, range }) => {
            if (!range) return;
            ranges.push(range);
            answer(
              range,
              script.bulk,
              ({ region, firstPage, pageCount }) => frameOf(firstPage, pageCount, Encoding.RAW, { region }),
              (frame) => call.write(create(BulkResponseSchema, { rangeId, frame, rangeDone: true })),
            );
          });
        },
        async complete(request) {
          completes.push(request);
          await script.onComplete?.(request);
          return {};
        },
      },
      (error) => toServiceError(error),
    );

  let server: RunningServer | undefined = await startServer({ listen: `${OWN_LOOPBACK}:0`, services: [service()] });
  const { address } = server;
  t.after(() => server?.shutdown(0));
  return {
    address,
    opens,
    completes,
    faults,
    ranges,
    streams,
    release() {
      released = true;
      const answers = kept;
      kept = [];
      for (const send of answers) send();
    },
    pause() {
      running = false;
      paused.emit('paused');
    },
    async kill() {
      await server?.shutdown(0);
      server = undefined;
      kept = [];
    },
    async restart() {
      server = await startServer({ listen: address, services: [service()] });
    },
  };
}

/** Reads a stream until its other side ends or is gone. */
function conversation<Q, R>(call: ServerDuplexStream<Q, R>, onRequest: (request: Q) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call.on('data', (request: Q) => {
      try {
        onRequest(request);
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
    call.on('end', resolve);
    call.on('cancelled', resolve);
    call.on('close', resolve);
  });
}

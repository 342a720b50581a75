/** The destination's side: Open, the two lanes, Complete. */
import { create } from '@bufbuild/protobuf';
import type { ServerWritableStream } from '@grpc/grpc-js';
import { ErrorReason, PagewakeError, type Logger } from '@pagewake/agent-kit';
import {
  OpenResponseSchema,
  writeMessage,
  type Handlers,
  type OpenRequest,
  type OpenResponse,
  type PageService,
} from '@pagewake/proto';
import { BufferPool } from '../../domain/buffer-pool.ts';
import { FrameMaker, type Codec } from '../../domain/frame-maker.ts';
import type { VmRegistry } from '../../domain/registry.ts';
import type { Vm } from '../../domain/vm.ts';
import type { ServeTracer } from '../serve-tracer.ts';
import { BulkLane, type Compression } from './bulk-lane.ts';
import { FaultLane } from './fault-lane.ts';
import type { LaneContext } from './lane.ts';
import { regionMessages, regionOf } from './wire.ts';

export interface PageServiceOptions {
  readonly registry: VmRegistry;
  readonly codec: Codec;
  readonly tracer: ServeTracer;
  readonly compression: Compression;
  readonly faultCompression: boolean;
  readonly log: Logger;
  readonly onBug: (error: unknown) => void;
}

/** Version 0 was never released: there is no version before the first one. */
const SPOKEN_VERSIONS: readonly number[] = [1];
const RUNS_A_MESSAGE = 8192;
/** Of each size: grpc-js holds 16 messages before it says that the peer is behind, on either lane. */
const KEPT_BUFFERS = 32;

export function pageHandlers(options: PageServiceOptions): Handlers<typeof PageService> {
  const { registry, log } = options;
  const lanes: LaneContext = {
    registry,
    makerOf: (vm) => frameMaker(vm, options.codec),
    buffers: new BufferPool(KEPT_BUFFERS),
    onBug: options.onBug,
  };
  return {
    open: (call) => open(call, registry, log),

    faults(call) {
      new FaultLane(call, lanes, { compress: options.faultCompression, tracer: options.tracer }).start();
      return untilClosed(call);
    },

    bulk(call) {
      new BulkLane(call, lanes, { compression: options.compression, tracer: options.tracer }).start();
      return untilClosed(call);
    },

    complete(request) {
      const { ended, vm } = registry.session(request.session);
      if (ended !== undefined) throw ended;
      vm.complete();
      const { vmId, generation, pagesServed, payloadBytes } = vm;
      log.info(
        {
          vmId,
          generation,
          pagesServed,
          payloadBytes,
          pagesByFault: Number(request.pagesByFault),
          pagesByPrefetch: Number(request.pagesByPrefetch),
          pagesZero: Number(request.pagesZero),
        },
        'completed',
      );
      return { pagesServed: BigInt(pagesServed), payloadBytes: BigInt(payloadBytes) };
    },
  };
}

/** A lane ends its stream itself; the handler only has to last as long. */
function untilClosed(call: { once(event: 'close', listener: () => void): unknown }): Promise<void> {
  return new Promise((resolve) => call.once('close', resolve));
}

function frameMaker(vm: Vm, codec: Codec): FrameMaker {
  if (vm.scanned === undefined) throw new Error(`VM ${vm.vmId} is served without having been scanned`);
  return new FrameMaker(vm.image, vm.scanned.zeros, codec);
}

type OpenCall = ServerWritableStream<OpenRequest, OpenResponse>;

async function open(call: OpenCall, registry: VmRegistry, log: Logger): Promise<void> {
  const { request } = call;
  const protocolVersion = request.protocolVersion;
  if (!SPOKEN_VERSIONS.includes(protocolVersion)) {
    const accepted = SPOKEN_VERSIONS.join(', ');
    throw new PagewakeError(
      ErrorReason.UNSUPPORTED_VERSION,
      `protocol version ${String(protocolVersion)} is not spoken here; accepted: ${accepted}`,
      { found: protocolVersion, expected: accepted },
    );
  }
  const session = registry.open({ ...request, regions: request.regions.map(regionOf) });
  const { vm } = session;
  const { vmId, generation } = vm;
  log.info({ vmId, generation, destinationId: session.destinationId, peer: call.getPeer() }, 'opened');
  const zeros = vm.scanned?.zeros;
  if (zeros === undefined) throw new Error(`VM ${vmId} was opened without having been scanned`);
  const value = {
    protocolVersion,
    session: Uint8Array.from(session.id),
    generation,
    regions: regionMessages(vm.regions),
    dataPages: BigInt(zeros.dataPages),
  };
  await writeMessage(call, create(OpenResponseSchema, { part: { case: 'accepted', value } }));
  for (const [region, { firstPages, pageCounts }] of zeros.lists.entries()) {
    for (let from = 0; from < firstPages.length && !call.cancelled; from += RUNS_A_MESSAGE) {
      // The list that ends must be the whole one: a fenced destination must not take half of it for all.
      if (session.ended !== undefined) throw session.ended;
      const value = {
        region,
        firstPages: [...firstPages.subarray(from, from + RUNS_A_MESSAGE)],
        pageCounts: [...pageCounts.subarray(from, from + RUNS_A_MESSAGE)],
      };
      await writeMessage(call, create(OpenResponseSchema, { part: { case: 'zeroRuns', value } }));
    }
  }
}

/** The destination's side: Open, the two lanes, Complete. */
import { setImmediate as nextTurn } from 'node:timers/promises';
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
import type { Session } from '../../domain/session.ts';
import type { Vm } from '../../domain/vm.ts';
import type { ZeroTable } from '../../domain/zero-table.ts';
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
  /** Where faults are taken on bare connections; 0: nowhere. */
  readonly faultPort: () => number;
  /** Where bulk is served by a thread of its own; 0: nowhere. */
  readonly bulkPort: () => number;
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
    open: (call) => open(call, registry, { faultPort: options.faultPort(), bulkPort: options.bulkPort() }, log),

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

export function frameMaker(vm: Vm, codec: Codec): FrameMaker {
  return new FrameMaker(vm.image, zerosOf(vm), codec);
}

/** Of a VM that stands still. */
function zerosOf(vm: Vm): ZeroTable {
  if (vm.standstill === undefined) throw new Error(`VM ${vm.vmId} is served without having been paused`);
  return vm.standstill.zeros;
}

type OpenCall = ServerWritableStream<OpenRequest, OpenResponse>;

/** Where lanes are served that have ports of their own. */
interface LanePorts {
  readonly faultPort: number;
  readonly bulkPort: number;
}

async function open(call: OpenCall, registry: VmRegistry, ports: LanePorts, log: Logger): Promise<void> {
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
  const { vmId, generation, state } = vm;
  const peer = call.getPeer();
  log.info({ vmId, generation, state, destinationId: session.destinationId, peer }, 'opened');
  const gone = (): void => vm.leave(session);
  call.once('cancelled', gone);
  call.once('close', gone);
  // Cancelled before anybody listened.
  if (call.cancelled) gone();
  const value = {
    protocolVersion,
    session: Uint8Array.from(session.id),
    generation,
    regions: regionMessages(vm.regions),
    dataPages: BigInt(vm.standstill?.zeros.dataPages ?? 0),
    ...ports,
  };
  await writeMessage(call, create(OpenResponseSchema, { part: { case: 'accepted', value } }));
  await session.untilPaused;
  // In a turn of its own: the answer to SetPaused, on which the guest's way hangs, goes first.
  await nextTurn();
  await tellZeros(call, session);
}

/** Paused, then the runs. A destination that is fenced meanwhile must not take half of the list for all, so what ends the session ends this. */
async function tellZeros(call: OpenCall, session: Session): Promise<void> {
  const zeros = zerosOf(session.vm);
  if (session.ended !== undefined) throw session.ended;
  const paused = { dataPages: BigInt(zeros.dataPages) };
  await writeMessage(call, create(OpenResponseSchema, { part: { case: 'paused', value: paused } }));
  for (const [region, { firstPages, pageCounts }] of zeros.lists.entries()) {
    for (let from = 0; from < firstPages.length && !call.cancelled; from += RUNS_A_MESSAGE) {
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

/** What both lanes' workers share: the source link with its stream, and errors that become messages. */
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { linkOptions } from '../adapters/link-options.ts';
import { isRecoverable, SourceLink, type StreamEvents } from '../adapters/page-source.ts';
import { PagewakeError } from '../kit.ts';
import { FaultHint } from './counters.ts';
import type { FromLane, LaneError, LaneStart, LaneToLane, ToLane } from './messages.ts';

export interface LaneContext {
  readonly start: LaneStart;
  readonly link: SourceLink;
  readonly hint: FaultHint;
  readonly peer: MessagePort;
  post(message: FromLane): void;
  postToPeer(message: LaneToLane): void;
  /** Responses go to the lane; the end of its stream is reported: lost where it may come back, fatal where the source refused. */
  streamEvents<Response>(lane: StreamUser<Response>, what: 'demand faults' | 'bulk'): StreamEvents<Response>;
}

/** A lane, as far as its stream is concerned. */
interface StreamUser<Response> {
  onResponse(response: Response): void;
  dropStream(): void;
}

function toLaneError(error: PagewakeError): LaneError {
  return { reason: error.reason, message: error.message, metadata: error.metadata };
}

/**
 * Rehearses, and hands messages over, one after the other, from then on.
 * @param handle called for every message of the main thread
 * @param rehearse left out where a guest waits already
 */
export async function runLane(
  handle: (message: ToLane, context: LaneContext) => void,
  rehearse: (start: LaneStart) => Promise<unknown>,
): Promise<void> {
  const port = parentPort;
  if (!port) throw new Error('a lane runs as a worker');
  const start = workerData as LaneStart;
  const link = new SourceLink(start.sourceAddress, linkOptions(start.credentials));
  const post = (message: FromLane): void => port.postMessage(message);
  let detoured = false;
  const context: LaneContext = {
    start,
    link,
    hint: new FaultHint(start.hint),
    peer: start.peer,
    post,
    postToPeer: (message) => start.peer.postMessage(message),
    streamEvents: (lane, what) => ({
      onResponse: (response) => lane.onResponse(response),
      onEnd: (error) => {
        lane.dropStream();
        post({ type: isRecoverable(error) ? 'lost' : 'fatal', error: toLaneError(error) });
      },
      onDetour: (why) => {
        // Every stream after a lost link may find the same firewall.
        if (!detoured) post({ type: 'alarm', message: `${what} over gRPC, which is slower: ${why}` });
        detoured = true;
      },
    }),
  };
  port.on('message', (message: ToLane) => handle(message, context));
  try {
    if (start.patient !== true) await rehearse(start);
    post({ type: 'started' });
  } catch (error) {
    if (!(error instanceof PagewakeError)) throw error;
    post({ type: 'fatal', error: toLaneError(error) });
  }
}

/** What both lanes' workers share: the source link with its stream, and errors that become messages. */
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import { isRecoverable, SourceLink } from '../adapters/page-source.ts';
import { PagewakeError } from '../kit.ts';
import { FaultHint } from './counters.ts';
import type { FromLane, LaneError, LaneStart, LaneToLane, ToLane } from './messages.ts';

const CONNECT_TIMEOUT_MS = 10_000;

export interface LaneContext {
  readonly start: LaneStart;
  readonly link: SourceLink;
  readonly hint: FaultHint;
  readonly peer: MessagePort;
  post(message: FromLane): void;
  postToPeer(message: LaneToLane): void;
  /** Reports the end of a stream: lost where it may come back, fatal where the source refused. */
  streamEnded(error: PagewakeError): void;
}

export function toLaneError(error: PagewakeError): LaneError {
  return { reason: error.reason, message: error.message, metadata: error.metadata };
}

/**
 * Connects to the source and hands messages over, one after the other, from then on.
 * @param handle called for every message of the main thread
 */
export async function runLane(handle: (message: ToLane, context: LaneContext) => void): Promise<void> {
  const port = parentPort;
  if (!port) throw new Error('a lane runs as a worker');
  const start = workerData as LaneStart;
  const { credentials } = start;
  const link = new SourceLink(start.sourceAddress, {
    tlsCa: credentials.tlsCa,
    tlsCert: credentials.tlsCert,
    tlsKey: credentials.tlsKey,
    serverName: credentials.serverName,
    insecurePlaintext: credentials.allowPlaintext,
  });
  const post = (message: FromLane): void => port.postMessage(message);
  const context: LaneContext = {
    start,
    link,
    hint: new FaultHint(start.hint),
    peer: start.peer,
    post,
    postToPeer: (message) => start.peer.postMessage(message),
    streamEnded: (error) => post({ type: isRecoverable(error) ? 'lost' : 'fatal', error: toLaneError(error) }),
  };
  port.on('message', (message: ToLane) => handle(message, context));
  try {
    await link.connect(CONNECT_TIMEOUT_MS);
    post({ type: 'started' });
  } catch (error) {
    if (!(error instanceof PagewakeError)) throw error;
    post({ type: 'fatal', error: toLaneError(error) });
  }
}

/** The bulk lane's thread: an event loop with nothing else on it, so that no fault ever stands behind bulk. At lower priority, as a fault goes first. */
import { parentPort, workerData } from 'node:worker_threads';
import { startBareServer, type BareServer } from '@pagewake/agent-kit/lane';
import { sendNow, setThreadNice } from '@pagewake/native';
import { BufferPool } from '../../domain/buffer-pool.ts';
import { BulkConnection } from './connection.ts';
import { Compressor } from './compressor.ts';
import type { BulkStart, FromBulk, ToBulk } from './messages.ts';

/** As the destination's bulk lane has it; not lower, or a guest that spins would starve it. */
const BULK_NICE = 5;
/** A request is a few dozen bytes. */
const MAX_REQUEST_BYTES = 64 * 1024;
/** Two chunks: one goes out while the next is read. */
const HIGH_WATER_MARK_BYTES = 512 * 1024;
const KEPT_BUFFERS = 8;

const port = parentPort;
if (!port) throw new Error('the bulk lane runs as a worker');
const { host, port: wanted, compression, ...tls } = workerData as BulkStart;
const post = (message: FromBulk): void => port.postMessage(message);
const connections = new Map<number, BulkConnection>();
const buffers = new BufferPool(KEPT_BUFFERS);
let streams = 0;
let server: BareServer | undefined;

port.on('message', (message: ToBulk) => {
  if (message.type !== 'stop') connections.get(message.stream)?.onWord(message);
  else void server?.close().then(() => port.close());
});

setThreadNice(BULK_NICE);
try {
  server = await startBareServer(
    {
      ...tls,
      at: { host, port: wanted },
      maxMessageBytes: MAX_REQUEST_BYTES,
      highWaterMarkBytes: HIGH_WATER_MARK_BYTES,
      // A stream would put this thread to sleep after every second chunk, until it says that it can take more.
      sendNow,
    },
    (bare) => {
      const stream = ++streams;
      const compressor = new Compressor(compression);
      const connection = new BulkConnection(bare, { stream, buffers, compressor, post });
      connections.set(stream, connection);
      return {
        onMessage: (message) => connection.onMessage(message),
        onRead: () => connection.onRead(),
        onGarbage: (error) => connection.onGarbage(error),
        onDrain: () => connection.onDrain(),
        onClose: () => {
          connections.delete(stream);
          connection.onClose();
        },
      };
    },
  );
  post({ type: 'listening', port: server.port });
} catch (error) {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  post({ type: 'not-listening', code });
}

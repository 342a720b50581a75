/**
 * An OTLP/gRPC trace receiver as a program of its own, so that it can stand on one of the hosts: prints every span as a JSON line.
 * `node otlp-receiver.ts HOST:PORT`
 */
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import { decodeTraces, type ReceivedSpan } from './otlp-decode.ts';

const EXPORT = {
  path: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
  requestStream: false,
  responseStream: false,
  requestSerialize: (bytes: Buffer) => bytes,
  requestDeserialize: (bytes: Buffer) => bytes,
  responseSerialize: (bytes: Buffer) => bytes,
  responseDeserialize: (bytes: Buffer) => bytes,
} as const;

export async function startReceiver(
  listen: string,
  onSpan: (span: ReceivedSpan) => void,
): Promise<{ address: string; server: Server }> {
  const server = new Server();
  server.addService(
    { export: EXPORT },
    {
      export: (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => {
        for (const span of decodeTraces(call.request)) onSpan(span);
        callback(null, Buffer.alloc(0));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(listen, ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return { address: `${listen.slice(0, listen.lastIndexOf(':'))}:${port}`, server };
}

if (import.meta.main) {
  const { address } = await startReceiver(process.argv[2] ?? '127.0.0.1:0', (span) => {
    process.stdout.write(`${JSON.stringify({ event: 'span', span })}\n`);
  });
  process.stdout.write(`${JSON.stringify({ event: 'listening', address })}\n`);
}

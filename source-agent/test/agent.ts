/** A source agent behind a real gRPC server, and clients of it, for tests. */
import type { TestContext } from 'node:test';
import { createLogger, openChannel, startServer, startTelemetry, type Telemetry } from '@pagewake/agent-kit';
import { createClient, PageService, SourceService, type ServiceClient } from '@pagewake/proto';
import { sourceServices } from '../src/adapters/grpc/services.ts';

export const TOKEN = Buffer.alloc(32, 0x5a);

export interface TestAgent {
  readonly address: string;
  readonly source: ServiceClient<typeof SourceService>;
  readonly pages: ServiceClient<typeof PageService>;
  /** Another connection. */
  connect(): ServiceClient<typeof PageService>;
  /** Registers and pauses; returns the generation. */
  serve(
    vmId: string,
    memory: Parameters<ServiceClient<typeof SourceService>['register']>[0]['memory'],
  ): Promise<number>;
}

export interface TestAgentOptions {
  readonly compression?: 'auto' | 'off' | 'lz4';
  readonly faultCompression?: boolean;
  readonly telemetry?: Telemetry;
  /** Default: false, as a thread takes its time to start. */
  readonly bulkThread?: boolean;
}

export async function startAgent(t: TestContext, options: TestAgentOptions = {}): Promise<TestAgent> {
  const log = createLogger('test', 'silent');
  const telemetry = options.telemetry ?? (await startTelemetry({ serviceName: 'test', log }));
  const { compression = 'off', faultCompression = false, bulkThread = false } = options;
  const listen = '127.0.0.1:0';
  const config = { listen, bulkPort: 0, compression, faultCompression, faultSpinUs: 0 };
  const agent = sourceServices(config, log, telemetry);
  const server = await startServer({ listen, services: agent.services });
  await agent.listenForFaults({ host: '127.0.0.1', port: 0 });
  if (bulkThread) await agent.listenForBulk();
  t.after(async () => {
    await agent.close();
    await server.shutdown(0);
  });
  const open = () => {
    const channel = openChannel(server.address);
    t.after(() => channel.close());
    return channel;
  };
  const channel = open();
  const source = createClient(SourceService, channel);
  return {
    address: server.address,
    source,
    pages: createClient(PageService, channel),
    connect: () => createClient(PageService, open()),
    async serve(vmId, memory) {
      const { generation } = await source.register(
        memory === undefined ? { vmId, token: TOKEN } : { vmId, token: TOKEN, memory },
      );
      await source.setPaused({ vmId, generation, paused: true });
      return generation;
    },
  };
}

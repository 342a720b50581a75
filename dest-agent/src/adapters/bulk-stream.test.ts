import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { startBareServer } from '@pagewake/agent-kit';
import type { BulkResponse } from '@pagewake/proto';
import { startFakeSource } from '../../test/fake-source.ts';
import { frameOf } from '../../test/pages.ts';
import { SourceLink } from './page-source.ts';

const BUDGET = { timeout: 20_000 };

/** A port at which nobody listens. */
async function closedPort(): Promise<number> {
  const none = { onMessage: () => undefined, onDrain: () => undefined, onClose: () => undefined };
  const at = { host: '127.0.0.1', port: 0 };
  const server = await startBareServer({ at, maxMessageBytes: 1, silenceMs: 1000, highWaterMarkBytes: 1 }, () => none);
  await server.close();
  return server.port;
}

function ask(t: TestContext, address: string, bulkPort: number): Promise<BulkResponse> {
  const link = new SourceLink(address, {});
  t.after(() => link.close());
  return new Promise((resolve, reject) => {
    const stream = link.openBulk(Buffer.alloc(16, 1), bulkPort, () => undefined, {
      // Valid until this returns: so what is kept is a copy.
      onResponse: (response) => resolve(structuredClone(response)),
      onEnd: reject,
    });
    t.after(() => stream.cancel());
    stream.request({ rangeId: 7, region: 0, firstPage: 3, pageCount: 5 });
  });
}

for (const [law, port] of [
  ['a source without a bulk port is asked over gRPC', () => Promise.resolve(0)],
  ['a bulk port that cannot be reached is no harm: the range comes over gRPC', closedPort],
] as const)
  test(law, BUDGET, async (t) => {
    const source = await startFakeSource(t, {
      pages: 16,
      bulk: ({ firstPage, pageCount }) => frameOf(firstPage, pageCount),
    });
    const { rangeId, rangeDone, frame } = await ask(t, source.address, await port());
    assert.deepEqual([rangeId, rangeDone, frame?.firstPage, frame?.pageCount], [7, true, 3, 5]);
    assert(Buffer.from(frame?.payload ?? []).equals(Buffer.from(frameOf(3, 5).payload)));
  });

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { ErrorReason, MigrationPhase } from '@pagewake/proto';
import { handOver, reasonOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, seen } from '../../test/pages.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'UFFDIO_POISON') };
const PAGES = 512;

/** A port that refuses connections: bound a moment ago, and not any more. */
async function deadPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' ? (address?.port ?? 0) : 0;
}

test('a source whose fault port cannot be reached is asked over gRPC', UFFD, async (t) => {
  const source = await startFakeSource(t, {
    pages: PAGES,
    accepted: { faultPort: await deadPort() },
    bulk: () => undefined,
  });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.deepEqual(await vmm.message(), { type: 'ready' });
  assert.deepEqual(await vmm.touch(0, 300), seen(content(300)));
  assert.equal(source.streams.faults, 1);
  source.release();
  await dest.phase('m', MigrationPhase.COMPLETED);
});

test('a fault port that says no word and closes is a lost source', UFFD, async (t) => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const address = server.address();
  const faultPort = typeof address === 'object' ? (address?.port ?? 0) : 0;
  const source = await startFakeSource(t, { pages: PAGES, accepted: { faultPort }, bulk: () => undefined });
  const dest = await startDest(t);
  const { vmmSocket } = await dest.start(source.address);
  const vmm = await startVmm(t, { pages: PAGES });
  handOver(vmm, vmmSocket);
  assert.equal(reasonOf(await dest.phase('m', MigrationPhase.INTERRUPTED)), ErrorReason[ErrorReason.SOURCE_LOST]);
  await until('it is opened again', () => source.opens.length > 1);
});

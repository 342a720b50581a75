import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { MESSAGE_PREFIX_BYTES, putMessagePrefix } from '@pagewake/agent-kit';
import { makeAuthority } from '@pagewake/agent-kit/testing';
import { Encoding, ErrorReason, HEAD_ROOM_BYTES, MigrationPhase, putFrameHead } from '@pagewake/proto';
import { handOver, reasonOf, startDest, startVmm } from '../../test/agent.ts';
import { startFakeSource } from '../../test/fake-source.ts';
import { content, seen } from '../../test/pages.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET, until } from '../../test/wait.ts';
import { FaultConnection } from './fault-connection.ts';

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

test('faults go over TLS where the link has it, and to no source of another authority', UFFD, async (t) => {
  const authority = makeAuthority(t);
  const { tlsCert, tlsKey } = authority.issue('127.0.0.1');
  const server = createTlsServer({ cert: readFileSync(tlsCert), key: readFileSync(tlsKey) }, (socket) => {
    socket.on('error', () => undefined);
    const head = { id: 1, done: false, queueNs: 0, readNs: 0, encodeNs: 0, receivedAtMs: 0 };
    const frame = { region: 0, firstPage: 7, pageCount: 1, encoding: Encoding.ZERO, checksum: 0 };
    const answer = Buffer.alloc(HEAD_ROOM_BYTES + MESSAGE_PREFIX_BYTES);
    const start = putFrameHead(answer, answer.length, 0, { ...head, ...frame });
    socket.write(answer.subarray(putMessagePrefix(answer, start, answer.length - start)));
  }).listen(0, '127.0.0.1');
  server.on('tlsClientError', () => undefined);
  await once(server, 'listening');
  t.after(() => server.close());
  const bound = server.address();
  const address = `127.0.0.1:${typeof bound === 'object' ? (bound?.port ?? 0) : 0}`;
  const tried = (tlsCa: string): Promise<number | string> =>
    new Promise((resolve) => {
      const link = { tlsCa };
      const connection = new FaultConnection(
        { address, link, session: Buffer.alloc(16), count: () => undefined },
        {
          onResponse: ({ frame }) => resolve(frame?.firstPage ?? -1),
          onEnd: (error) => resolve(error.reasonName),
          onUnreachable: () => resolve('unreachable'),
        },
      );
      t.after(() => connection.cancel());
    });
  assert.equal(await tried(authority.ca), 7);
  assert.equal(await tried(makeAuthority(t).ca), 'unreachable');
});

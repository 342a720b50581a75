import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { connect, type ConnectionOptions } from 'node:tls';
import { makeAuthority } from '@pagewake/agent-kit/testing';
import { openFaultPort } from './port.ts';

const BUDGET = { timeout: 20_000 };
const LOCAL = '127.0.0.1';
const WORD = 'heard';

test(
  'with TLS files the fault port speaks TLS only, and with an authority only to who has its certificate',
  BUDGET,
  async (t) => {
    const authority = makeAuthority(t);
    const stranger = makeAuthority(t);
    const port = await openFaultPort(
      { host: LOCAL, port: 0, ...authority.issue(LOCAL), tlsCa: authority.ca },
      (socket) => socket.end(WORD),
    );
    t.after(() => port.close());
    const heard = async (options: ConnectionOptions): Promise<string> => {
      const socket = connect({ host: LOCAL, port: port.port, ca: readFileSync(authority.ca), ...options });
      let text = '';
      socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
      socket.on('error', () => undefined);
      await new Promise((resolve) => socket.once('close', resolve));
      return text;
    };
    const pairOf = ({ tlsCert, tlsKey }: { tlsCert: string; tlsKey: string }) => ({
      cert: readFileSync(tlsCert),
      key: readFileSync(tlsKey),
    });
    assert.equal(await heard(pairOf(authority.issue('client'))), WORD);
    assert.equal(await heard({}), '');
    assert.equal(await heard(pairOf(stranger.issue('client'))), '');
  },
);

test('a port that is taken is an error that names it', BUDGET, async (t) => {
  const port = await openFaultPort({ host: LOCAL, port: 0 }, (socket) => socket.destroy());
  t.after(() => port.close());
  await assert.rejects(
    openFaultPort({ host: LOCAL, port: port.port }, () => undefined),
    /--fault-port/,
  );
});

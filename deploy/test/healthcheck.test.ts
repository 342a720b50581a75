/** The images' health check against a real server, in each way that an agent may be reached. */
import assert from 'node:assert/strict';
import { execFile, type ExecFileException } from 'node:child_process';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startServer, type TlsFiles } from '@pagewake/agent-kit';
import { makeAuthority } from '@pagewake/agent-kit/testing';

const SCRIPT = join(dirname(dirname(fileURLToPath(import.meta.url))), 'healthcheck.mjs');

/** Asynchronously: the server that it asks is in this process. */
function health(env: Readonly<Record<string, string>>): Promise<{ code: number; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [SCRIPT], { env }, (error: ExecFileException | null, _stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stderr }),
    );
  });
}

async function serve(t: TestContext, files: TlsFiles) {
  const server = await startServer({ listen: '127.0.0.1:0', services: [], ...files });
  t.after(() => server.shutdown(0));
  return server;
}

test('a server in plaintext is healthy until it stops', async (t) => {
  const server = await serve(t, {});
  const env = { PAGEWAKE_LISTEN: `0.0.0.0:${server.port}` };
  assert.deepEqual(await health(env), { code: 0, stderr: '' });
  await server.shutdown(0);
  const { code, stderr } = await health(env);
  assert.equal(code, 1);
  assert.match(stderr, /^unhealthy: .*ECONNREFUSED/);
});

test('a server with TLS is healthy although its certificate names another host', async (t) => {
  const pair = makeAuthority(t).issue('agent.example');
  const server = await serve(t, pair);
  assert.equal(server.security, 'tls');
  const env = {
    PAGEWAKE_LISTEN: server.address,
    PAGEWAKE_TLS_CERT: pair.tlsCert,
    PAGEWAKE_TLS_KEY: pair.tlsKey,
  };
  assert.deepEqual(await health(env), { code: 0, stderr: '' });
});

test('a server that asks for client certificates is shown its own', async (t) => {
  const authority = makeAuthority(t);
  const pair = authority.issue('agent.example');
  const server = await serve(t, { ...pair, tlsCa: authority.ca });
  assert.equal(server.security, 'mtls');
  const env = {
    PAGEWAKE_LISTEN: server.address,
    PAGEWAKE_TLS_CERT: pair.tlsCert,
    PAGEWAKE_TLS_KEY: pair.tlsKey,
    PAGEWAKE_TLS_CA: authority.ca,
  };
  assert.deepEqual(await health(env), { code: 0, stderr: '' });
});

test('without an address it says which variable is missing', async () => {
  assert.deepEqual(await health({}), { code: 1, stderr: 'unhealthy: PAGEWAKE_LISTEN is not set\n' });
});

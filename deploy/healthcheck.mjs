/**
 * Asks the agent of this container by gRPC health whether it serves: exit code 0 if it does, else 1 with the reason in one line. Reads the
 * agent's own variables (PAGEWAKE_LISTEN, PAGEWAKE_TLS_*); settings that were given by flag or file are not seen, so in a container
 * address and certificates are given as variables.
 */
import { readFileSync } from 'node:fs';
import { Client, credentials } from '@grpc/grpc-js';
import { service } from 'grpc-health-check';

const DEADLINE_MS = 4000;
const SERVING = 'SERVING';
/** grpc-js sends the address' host as TLS server name, and Node refuses an IP address there. Any name does: none is verified. */
const TLS_NAME = { 'grpc.ssl_target_name_override': 'agent.invalid' };

/** A listener on every address is reached by loopback. */
function target(listen) {
  const at = listen.lastIndexOf(':');
  const host = listen.slice(0, at);
  const port = listen.slice(at + 1);
  if (host === '0.0.0.0') return `127.0.0.1:${port}`;
  return host === '[::]' ? `[::1]:${port}` : listen;
}

/** Within one container there is nobody to be mistaken for the agent, and its certificate names a host, not loopback. */
function channelCredentials(env) {
  const { PAGEWAKE_TLS_CERT: cert, PAGEWAKE_TLS_KEY: key, PAGEWAKE_TLS_CA: ca } = env;
  if (!cert || !key) return credentials.createInsecure();
  // An agent that asks for client certificates is shown its own: its authority has signed it.
  const own = ca ? [readFileSync(key), readFileSync(cert)] : [null, null];
  return credentials.createSsl(ca ? readFileSync(ca) : null, ...own, { rejectUnauthorized: false });
}

function check(client) {
  const { path, requestSerialize, responseDeserialize } = service.Check;
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + DEADLINE_MS };
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      { service: '' },
      options,
      (error, response) => {
        if (error) reject(error);
        else resolve(String(response?.status));
      },
    );
  });
}

async function main() {
  const listen = process.env.PAGEWAKE_LISTEN;
  if (!listen) throw new Error('PAGEWAKE_LISTEN is not set');
  const client = new Client(target(listen), channelCredentials(process.env), TLS_NAME);
  try {
    const found = await check(client);
    if (found !== SERVING) throw new Error(`the agent says ${found}`);
  } finally {
    client.close();
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`unhealthy: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { openChannel, type ClientLinkOptions } from '@pagewake/agent-kit';
import { checkHealth, filesContaining, listServices, makeAuthority } from '@pagewake/agent-kit/testing';
import { createClient, FaultsRequestSchema, PageService, SourceService } from '@pagewake/proto';
import { TOKEN } from '../test/agent.ts';
import { startDaemon as start } from '../test/daemon.ts';
import { failureOf, readOpen, reasonOf } from '../test/conversation.ts';
import { K4, makeMemfd, noise } from '../test/guests.ts';

const BUDGET = { timeout: 30_000 };
test(
  'the daemon serves a registered VM, answers health and reflection, and ends well on SIGTERM',
  BUDGET,
  async (t) => {
    const daemon = start(t, ['--listen', '127.0.0.1:0']);
    const address = await daemon.address;
    assert.deepEqual(await listServices(address), [
      'grpc.health.v1.Health',
      'pagewake.v1.PageService',
      'pagewake.v1.SourceService',
    ]);
    assert.equal(await checkHealth(address, 'pagewake.v1.PageService'), 'SERVING');
    assert(
      (await filesContaining(address, 'pagewake.v1.PageService.Faults')).includes('pagewake/v1/page_service.proto'),
    );

    const file = makeMemfd(t, 8 * K4);
    file.write(0, noise(1));
    const channel = openChannel(address);
    t.after(() => channel.close());
    const source = createClient(SourceService, channel);
    const regions = [{ geometry: { pageSizeBytes: K4, pageCount: 8 }, fileOffset: 0n }];
    const memory = { kind: { case: 'file' as const, value: { path: file.path, regions } } };
    const { generation } = await source.register({ vmId: 'vm', token: TOKEN, memory });
    const paused = await source.setPaused({ vmId: 'vm', generation, paused: true });
    assert.deepEqual([paused.dataPages, paused.zeroPages], [1n, 7n]);
    const wish = { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' };
    const pages = createClient(PageService, channel);
    assert.equal((await readOpen(pages.open(wish))).accepted.dataPages, 1n);

    daemon.kill('SIGTERM');
    const { code, stderr } = await daemon.exit;
    assert.equal(code, 0, stderr);
    assert.match(stderr, /"msg":"stopped"/);
    for (const line of stderr.trim().split('\n')) JSON.parse(line);
    assert.doesNotMatch(stderr, /5a5a5a|WlpaWl/, 'the token is in no log');
  },
);

test('a stream that is open when the agent stops is told that the source is lost', BUDGET, async (t) => {
  const daemon = start(t, ['--listen', '127.0.0.1:0']);
  const channel = openChannel(await daemon.address);
  t.after(() => channel.close());
  const source = createClient(SourceService, channel);
  const file = makeMemfd(t, K4);
  const regions = [{ geometry: { pageSizeBytes: K4, pageCount: 1 }, fileOffset: 0n }];
  const memory = { kind: { case: 'file' as const, value: { path: file.path, regions } } };
  const { generation } = await source.register({ vmId: 'vm', token: TOKEN, memory });
  await source.setPaused({ vmId: 'vm', generation, paused: true });
  const pages = createClient(PageService, channel);
  const wish = { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' };
  const { accepted } = await readOpen(pages.open(wish));
  const call = pages.faults();
  const ended = failureOf(new Promise((_, reject) => call.once('error', reject)));
  const first = new Promise((resolve) => call.once('data', resolve));
  call.write(create(FaultsRequestSchema, { session: accepted.session, faults: [{ faultId: 1, region: 0, page: 0 }] }));
  await first;
  daemon.kill('SIGINT');
  assert.equal((await ended).reasonName, 'SOURCE_LOST');
  assert.equal((await daemon.exit).code, 0);
});

test('--help shows every option and an example, and exits 0', BUDGET, async (t) => {
  const { code, stdout } = await start(t, ['--help']).exit;
  assert.equal(code, 0);
  for (const flag of [
    '--listen',
    '--config',
    '--log-level',
    '--tls-cert',
    '--tls-key',
    '--tls-ca',
    '--insecure-plaintext',
    '--compression',
    '--fault-compression',
    '--lanes',
    '--fault-port',
    '--bulk-port',
  ]) {
    assert(stdout.includes(flag), flag);
  }
  assert.match(stdout, /\$ pagewake serve-source/);
});

test('flag, environment and file are one configuration in rising precedence', BUDGET, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'pagewake-source-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const config = join(dir, 'source.json');
  writeFileSync(config, JSON.stringify({ listen: 'nowhere', compression: 'lz4', logLevel: 'trace' }));
  const daemon = start(t, ['--config', config, '--listen', '127.0.0.1:0'], { PAGEWAKE_LOG_LEVEL: 'info' });
  assert.match(await daemon.address, /^127\.0\.0\.1:[1-9]/);
});

const MISTAKES: readonly [string, readonly string[], Record<string, string>, number, RegExp][] = [
  ['a flag', ['--compression', 'gzip'], {}, 2, /--compression: "gzip" is not allowed; allowed: auto, off, lz4$/],
  ['a variable', [], { PAGEWAKE_COMPRESSION: 'x' }, 2, /environment variable PAGEWAKE_COMPRESSION: "x" is not allowed/],
  ['an unknown flag', ['--port', '1'], {}, 2, /unknown option '--port'; see pagewake serve-source --help$/],
  ['an address', ['--listen', '7701'], {}, 2, /--listen: "7701" is not an address; give host:port/],
  [
    'plaintext beyond loopback',
    ['--listen', '0.0.0.0:0'],
    {},
    2,
    /refusing plaintext on 0\.0\.0\.0:0.*--tls-cert and --tls-key/,
  ],
  ['a port of a lane that is not to be', ['--lanes', 'grpc', '--bulk-port', '7704'], {}, 2, /with --lanes grpc there/],
  [
    'a certificate that is not there',
    ['--tls-cert', '/no/c', '--tls-key', '/no/k'],
    {},
    2,
    /--tls-cert: cannot read \/no\/c: ENOENT/,
  ],
];

for (const [name, argv, env, code, message] of MISTAKES) {
  test(`a mistake is one line on standard error and an exit code, never a stack trace: ${name}`, BUDGET, async (t) => {
    const result = await start(t, argv, env).exit;
    assert.equal(result.code, code);
    const lines = result.stderr.trim().split('\n');
    assert.equal(lines.length, 1, result.stderr);
    assert.match(lines[0] ?? '', message);
    assert.match(lines[0] ?? '', /^pagewake serve-source: /);
  });
}

for (const [option, argv, hint] of [
  ['--listen', (port: number) => ['--listen', `127.0.0.1:${port}`], 'the port is in use; stop'],
  [
    '--fault-port',
    (port: number) => ['--listen', '127.0.0.1:0', '--fault-port', String(port)],
    'for faults: EADDRINUSE',
  ],
  ['--bulk-port', (port: number) => ['--listen', '127.0.0.1:0', '--bulk-port', String(port)], 'for bulk: EADDRINUSE'],
] as const)
  test(`a port in use is named, with what to do: ${option}`, BUDGET, async (t) => {
    const taken = createServer().listen(0, '127.0.0.1');
    t.after(() => taken.close());
    await new Promise((resolve) => taken.once('listening', resolve));
    const at = taken.address();
    assert(typeof at === 'object' && at !== null);
    const { code, stderr } = await start(t, argv(at.port)).exit;
    assert.equal(code, 1);
    assert(stderr.includes(`cannot listen on 127.0.0.1:${at.port}`), stderr);
    assert(stderr.includes(hint), stderr);
    assert(option === '--listen' || stderr.includes(option), stderr);
  });

test('with --lanes grpc a destination is told of no port', BUDGET, async (t) => {
  const daemon = start(t, ['--listen', '127.0.0.1:0', '--lanes', 'grpc']);
  const channel = openChannel(await daemon.address);
  t.after(() => channel.close());
  const source = createClient(SourceService, channel);
  const file = makeMemfd(t, K4);
  const regions = [{ geometry: { pageSizeBytes: K4, pageCount: 1 }, fileOffset: 0n }];
  const memory = { kind: { case: 'file' as const, value: { path: file.path, regions } } };
  const { generation } = await source.register({ vmId: 'vm', token: TOKEN, memory });
  await source.setPaused({ vmId: 'vm', generation, paused: true });
  const wish = { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd' };
  const { accepted } = await readOpen(createClient(PageService, channel).open(wish));
  assert.deepEqual([accepted.faultPort, accepted.bulkPort], [0, 0]);
});

test('mTLS on the agent: a client of the authority is served, plaintext and strangers are not', BUDGET, async (t) => {
  const authority = makeAuthority(t);
  const { tlsCert, tlsKey } = authority.issue('127.0.0.1');
  const tls = ['--tls-cert', tlsCert, '--tls-key', tlsKey, '--tls-ca', authority.ca];
  const daemon = start(t, ['--listen', '0.0.0.0:0', ...tls]);
  const address = (await daemon.address).replace('0.0.0.0', '127.0.0.1');
  const list = async (options: ClientLinkOptions): Promise<string> => {
    const channel = openChannel(address, options);
    t.after(() => channel.close());
    return reasonOf(createClient(SourceService, channel).list({}, { timeoutMs: 5000 }));
  };
  assert.equal(await list({ tlsCa: authority.ca, ...authority.issue('client') }), 'none');
  assert.equal(await list({ tlsCa: authority.ca }), 'UNSPECIFIED');
  assert.equal(await list({}), 'UNSPECIFIED');
});

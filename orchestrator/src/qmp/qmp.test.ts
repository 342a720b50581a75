/** The QMP client against a real QEMU, and against what is none. */
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { UserError } from '@pagewake/agent-kit';
import { z } from 'zod';
import { temporaryFolder } from '../../test/programs.ts';
import { startTestQemu, whyNoQemu } from '../../test/qemu.ts';
import { isLocal, parseQmpAddress } from './address.ts';
import { QmpClient } from './client.ts';
import { QmpClosed, QmpRefused, QmpSilent, QmpUnreachable } from './errors.ts';
import type { QmpEvent } from './messages.ts';

const BUDGET = { timeout: 30_000 };
const REAL = { ...BUDGET, skip: whyNoQemu() ?? false };
const STATUS = z.object({ status: z.string() });

const at = (path: string) => parseQmpAddress(`unix:${path}`, 'qmp');

async function connectTo(t: TestContext, path: string): Promise<QmpClient> {
  const client = await QmpClient.connect(at(path), 'test QEMU');
  t.after(() => client.close());
  return client;
}

/** A server that writes `greeting` and then does with each line what a test wants. */
async function listen(
  t: TestContext,
  greeting: string,
  onLine: (line: { readonly id: number }, socket: Socket) => void = () => undefined,
): Promise<string> {
  const path = join(temporaryFolder(t), 'qmp');
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.write(greeting);
    socket.on('data', (data) => {
      for (const line of data.toString().trim().split('\n'))
        onLine(JSON.parse(line) as { readonly id: number }, socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return path;
}

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}\r\n';
const yes = ({ id }: { readonly id: number }): string => `{"return": {}, "id": ${String(id)}}\r\n`;

test('a real QEMU answers, says its version, and tells its events with their times', REAL, async (t) => {
  const { qmpPath } = await startTestQemu(t);
  const client = await connectTo(t, qmpPath);
  assert.ok(client.version.major >= 8);
  const seen: QmpEvent[] = [];
  const events = client.events();
  assert.equal((await client.execute('query-status', {}, STATUS)).status, 'running');
  await client.execute('stop');
  assert.equal((await client.execute('query-status', {}, STATUS)).status, 'paused');
  await client.execute('cont');
  for await (const event of events) {
    seen.push(event);
    if (event.type === 'resume') break;
  }
  assert.deepEqual(
    seen.map(({ type }) => type),
    ['stop', 'resume'],
  );
  const [stop, resume] = seen;
  assert.ok(stop !== undefined && resume !== undefined && stop.atMs <= resume.atMs);
});

test('commands that were sent at once are each answered by their own reply', REAL, async (t) => {
  const { qmpPath } = await startTestQemu(t);
  const client = await connectTo(t, qmpPath);
  const [status, name, refused] = await Promise.allSettled([
    client.execute('query-status', {}, STATUS),
    client.execute('query-name', {}, z.object({ name: z.string().optional() })),
    client.execute('no-such-command'),
  ]);
  assert.deepEqual([status.status, name.status, refused.status], ['fulfilled', 'fulfilled', 'rejected']);
  assert.ok(refused.status === 'rejected' && refused.reason instanceof QmpRefused);
  assert.equal(refused.reason.errorClass, 'CommandNotFound');
});

test(
  'a QEMU that ends rejects what is asked of it, ends its events, and is told apart from one that refuses',
  REAL,
  async (t) => {
    const { qmpPath, child } = await startTestQemu(t);
    const client = await connectTo(t, qmpPath);
    const events = Array.fromAsync(client.events());
    await child.kill('SIGKILL');
    await assert.rejects(client.execute('query-status', {}, STATUS), QmpClosed);
    await events;
    assert.ok(client.ended instanceof QmpClosed);
  },
);

test('a second connection to one QMP socket says that QEMU serves one at a time', REAL, async (t) => {
  const { qmpPath } = await startTestQemu(t);
  await connectTo(t, qmpPath);
  const second = QmpClient.connect(at(qmpPath), 'test QEMU', { timeoutMs: 200 });
  await assert.rejects(second, /no QMP greeting came; is another program connected to it/);
});

test('over TCP it is the same', REAL, async (t) => {
  const { qmpPath } = await startTestQemu(t, { args: ['-qmp', 'tcp:127.0.0.1:0,server=on,wait=off'] });
  const first = await connectTo(t, qmpPath);
  const chardevs = await first.execute('query-chardev', {}, z.array(z.object({ filename: z.string() })));
  const port = chardevs.map(({ filename }) => /tcp:127\.0\.0\.1:(\d+)/.exec(filename)?.[1]).find(Boolean) ?? '';
  const client = await QmpClient.connect(parseQmpAddress(`tcp:127.0.0.1:${port}`, 'qmp'), 'test QEMU');
  t.after(() => client.close());
  assert.equal((await client.execute('query-status', {}, STATUS)).status, 'running');
});

test('where nobody listens, or nobody who speaks QMP, it is unreachable', BUDGET, async (t) => {
  await assert.rejects(QmpClient.connect(at(join(temporaryFolder(t), 'none')), 'test QEMU'), QmpUnreachable);
  await assert.rejects(
    QmpClient.connect(at(await listen(t, 'SSH-2.0\n')), 'test QEMU'),
    /"SSH-2.0" is not a QMP greeting/,
  );
});

test('silence, a stop, and a broken connection each end the wait with an error of their own', BUDGET, async (t) => {
  const quiet = await connectTo(
    t,
    await listen(t, GREETING, (line, socket) => {
      if (line.id === 1) socket.write(yes(line));
    }),
  );
  await assert.rejects(quiet.execute('query-status', {}, STATUS, { timeoutMs: 50 }), QmpSilent);
  const stop = new AbortController();
  const asked = quiet.execute('query-status', {}, STATUS, { signal: stop.signal });
  stop.abort();
  await assert.rejects(asked, /told to stop/);
  const broken = await connectTo(
    t,
    await listen(t, GREETING, (line, socket) => (line.id === 1 ? socket.write(yes(line)) : socket.write('nonsense\n'))),
  );
  await assert.rejects(broken.execute('query-status', {}, STATUS), QmpClosed);
});

test('a reply that is not what QEMU answers is refused', BUDGET, async (t) => {
  const client = await connectTo(t, await listen(t, GREETING, (line, socket) => void socket.write(yes(line))));
  await assert.rejects(client.execute('query-status', {}, STATUS), /answered `query-status` with something else/);
});

test('an address is unix:PATH or tcp:HOST:PORT, and local only where that is sure', () => {
  for (const [text, local] of [
    ['unix:/run/a.qmp', true],
    ['tcp:127.0.0.1:4444', true],
    ['tcp:[::1]:4444', true],
    ['tcp:192.0.2.1:4444', false],
  ] as const) {
    assert.equal(isLocal(parseQmpAddress(text, '--source-qmp')), local, text);
  }
  for (const text of ['/run/a.qmp', 'tcp:here', 'unix:', 'tcp:h:99999']) {
    assert.throws(() => parseQmpAddress(text, '--source-qmp'), UserError);
  }
});

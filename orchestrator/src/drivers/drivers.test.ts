import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { temporaryFolder } from '../../test/programs.ts';
import { ControlSocket, RefusedCommand, UnreachableVmm } from './control-socket.ts';
import { GuestNeverRan } from './driver.ts';
import { SnapshotDriver } from './snapshot.ts';
import { memoryFrom, TestVmmDestination } from './testvmm.ts';

const BUDGET = { timeout: 10_000 };

/** A program at a control socket that does with a command what a test wants. */
async function listen(t: TestContext, onCommand: (line: string, socket: Socket) => void): Promise<string> {
  const path = join(temporaryFolder(t), 'vmm.sock');
  const server = createServer((socket) => {
    // The client may leave while it is being written to.
    socket.on('error', () => undefined);
    socket.on('data', (data) => onCommand(data.toString().trim(), socket));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => server.close());
  return path;
}

const ask = (path: string, timeoutMs = 5_000, signal?: AbortSignal) =>
  new ControlSocket(path, 'source VMM').command(['stats'], { timeoutMs, ...(signal === undefined ? {} : { signal }) });

test('a reply comes whole, in however many pieces', BUDGET, async (t) => {
  const path = await listen(t, (line, socket) => {
    assert.equal(line, 'stats');
    socket.write('{"ok":tr');
    setImmediate(() => socket.write('ue,"work":7}\nrest'));
  });
  assert.deepEqual(await ask(path), { ok: true, work: 7 });
});

const BAD: readonly (readonly [string, (socket: Socket) => void, RegExp])[] = [
  [
    'refuses',
    (s) => s.write('{"ok":false,"error":"no such thing"}\n'),
    /the source VMM refused `stats`: no such thing/,
  ],
  ['answers nonsense', (s) => s.write('hello\n'), /answered `stats` with "hello", not with \{"ok":…\}/],
  ['answers no object', (s) => s.write('7\n'), /answered `stats` with "7"/],
  ['goes away', (s) => s.end(), /ended during `stats`; what it printed last says why/],
  ['stays silent', () => undefined, /did not answer `stats` in 50 ms/],
  ['talks without end', (s) => s.write('x'.repeat(2 << 20)), /answered `stats` with more than 1048576 bytes/],
];
for (const [what, reply, says] of BAD) {
  test(`a VMM that ${what} is an error that names it`, BUDGET, async (t) => {
    const path = await listen(t, (_line, socket) => reply(socket));
    await assert.rejects(ask(path, what === 'stays silent' ? 50 : 5_000), says);
  });
}

test('a socket where nobody listens is told apart from one that does not answer', BUDGET, async (t) => {
  await assert.rejects(ask(join(temporaryFolder(t), 'none.sock')), UnreachableVmm);
});

test('a wait ends when it is told to', BUDGET, async (t) => {
  const path = await listen(t, () => undefined);
  const stop = new AbortController();
  const asked = ask(path, 5_000, stop.signal);
  stop.abort();
  await assert.rejects(asked, /told to stop during `stats`/);
});

test('a path with white space is refused before it becomes another command', BUDGET, async (t) => {
  const path = await listen(t, () => assert.fail('it was sent'));
  const control = new ControlSocket(path, 'source VMM');
  await assert.rejects(control.command(['save', '/tmp/a b'], { timeoutMs: 100 }), /"\/tmp\/a b" cannot be given/);
});

test('a destination that refused never ran the guest; one that ended without a word may have', BUDGET, async (t) => {
  const never = new AbortController().signal;
  const refuses = new TestVmmDestination(await listen(t, (_l, s) => s.write('{"ok":false,"error":"no"}\n')));
  await assert.rejects(refuses.start({ path: '/state' }, '/agent', never), GuestNeverRan);
  const nobody = new TestVmmDestination(join(temporaryFolder(t), 'none.sock'));
  await assert.rejects(nobody.start({ path: '/state' }, '/agent', never), GuestNeverRan);
  const ends = new TestVmmDestination(await listen(t, (_l, s) => s.end()));
  await assert.rejects(
    ends.start({ path: '/state' }, '/agent', never),
    (error) => !(error instanceof GuestNeverRan) && !(error instanceof RefusedCommand),
  );
});

const REGION = { address: 4096, size: 8192, offset: 0, page_size: 4096, gpa: 0, file_offset: 0 };

test('memory with a path is a file, without one it is a process', () => {
  const geometry = { pageSizeBytes: 4096, pageCount: 2 };
  assert.deepEqual(memoryFrom({ pid: 7, path: '/proc/7/fd/9', regions: [REGION] }, 'x'), {
    kind: { case: 'file', value: { path: '/proc/7/fd/9', regions: [{ geometry, fileOffset: 0n }] } },
  });
  assert.deepEqual(memoryFrom({ pid: 7, regions: [REGION] }, 'x'), {
    kind: { case: 'process', value: { pid: 7, regions: [{ geometry, address: 4096n }] } },
  });
});

test('a description that lacks something is refused by the name of what it lacks', () => {
  const cases: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ pid: 7 }, /without regions/],
    [{ pid: 7, regions: [] }, /without regions/],
    [{ regions: [REGION] }, /without its pid/],
    [{ pid: 7, regions: [{ ...REGION, page_size: 0 }] }, /without whole pages in region 0/],
    [{ pid: 7, regions: [{ ...REGION, size: 5000 }] }, /without whole pages in region 0/],
    [{ pid: 7, regions: [{ ...REGION, address: -1 }] }, /without a usable "address" of region 0/],
    [{ pid: 7, regions: [REGION, null] }, /without a usable "page_size" of region 1/],
  ];
  for (const [reply, says] of cases) assert.throws(() => memoryFrom(reply, 'x'), says);
});

test('a snapshot is cut into equal regions, and refused where it cannot be', BUDGET, async (t) => {
  const folder = temporaryFolder(t);
  const memoryFile = join(folder, 'guest.mem');
  writeFileSync(memoryFile, '');
  truncateSync(memoryFile, 8 * 4096);
  const driver = (options: object) =>
    new SnapshotDriver({ memoryFile, stateFile: join(folder, 'none'), destinationSocket: '/nowhere', ...options });
  const { memory, vmId } = await driver({ regions: 2 }).describeMemory();
  assert.equal(vmId, undefined);
  const geometry = { pageSizeBytes: 4096, pageCount: 4 };
  assert.deepEqual(memory.kind, {
    case: 'snapshot',
    value: {
      path: memoryFile,
      regions: [
        { geometry, fileOffset: 0n },
        { geometry, fileOffset: 16384n },
      ],
    },
  });
  await assert.rejects(
    driver({ regions: 3 }).describeMemory(),
    /32768 bytes are not 3 equal region\(s\) of whole pages/,
  );
  await assert.rejects(driver({}).check(new AbortController().signal), /state of the snapshot .*none: ENOENT/);
  await assert.rejects(driver({ memoryFile: folder }).describeMemory(), /it is not a regular file/);
});

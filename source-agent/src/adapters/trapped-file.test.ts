import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { linkSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { ErrorReason } from '@pagewake/agent-kit';
import { MemoryFile } from '@pagewake/native';
import { startAgent, TOKEN } from '../../test/agent.ts';
import { failureOf, reasonOf } from '../../test/conversation.ts';
import { K4, makeMemfd } from '../../test/guests.ts';
import { memfd, region } from '../../test/reading.ts';
import { lacking, startWatchedFile, startWatchedMemfd } from '../../test/watched-memfd.ts';
import { markOf } from './proc-maps.ts';

const PAGES = 16;
const BUDGET = { timeout: 20_000 };
const WATCHES = {
  missing: { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') },
  minor: { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MINOR on memfd') },
};
const registration = (path: string) => ({ vmId: 'vm', token: TOKEN, memory: memfd(path, region(K4, PAGES)) });

for (const mode of ['missing', 'minor'] as const)
  test(
    `a memfd that a userfaultfd watches for ${mode} faults is refused at Register until it is unregistered`,
    WATCHES[mode],
    async (t) => {
      const { source } = await startAgent(t);
      const guest = await startWatchedMemfd(t, PAGES);
      guest.watch(mode);
      const failure = await failureOf(source.register(registration(guest.path)));
      assert.equal(failure.reason, ErrorReason.MEMORY_UNREADABLE);
      assert.match(failure.message, /userfaultfd .*Wait until that migration is completed/);
      assert(failure.message.includes(guest.path) && failure.message.includes(`process ${String(guest.pid)}`));
      guest.unwatch();
      const { generation } = await source.register(registration(guest.path));
      const { zeroPages } = await source.setPaused({ vmId: 'vm', generation, paused: true });
      assert.equal(zeroPages, BigInt(PAGES));
    },
  );

test(
  'what a userfaultfd begins to watch after Register is served as it is: memory that was whole does not go away by being watched',
  WATCHES.missing,
  async (t) => {
    const { source } = await startAgent(t);
    const guest = await startWatchedMemfd(t, PAGES);
    const { generation } = await source.register(registration(guest.path));
    guest.watch('missing');
    const { zeroPages } = await source.setPaused({ vmId: 'vm', generation, paused: true });
    assert.equal(zeroPages, BigInt(PAGES));
  },
);

test('a refused Register leaves the generation before it in force', WATCHES.missing, async (t) => {
  const { source } = await startAgent(t);
  const { generation } = await source.register(registration(makeMemfd(t, PAGES * K4).path));
  const guest = await startWatchedMemfd(t, PAGES);
  guest.watch('missing');
  assert.equal(await reasonOf(source.register(registration(guest.path))), 'MEMORY_UNREADABLE');
  assert.equal(await reasonOf(source.setPaused({ vmId: 'vm', generation, paused: true })), 'none');
});

test('links to a descriptor, and the same written otherwise, are seen through', WATCHES.missing, async (t) => {
  const { source } = await startAgent(t);
  const guest = await startWatchedMemfd(t, PAGES);
  guest.watch('missing');
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-links-'));
  t.after(() => rmSync(folder, { recursive: true }));
  symlinkSync(guest.path, join(folder, 'memory'));
  symlinkSync('memory', join(folder, 'again'));
  symlinkSync(`/proc/${String(guest.pid)}`, join(folder, 'process'));
  const [, number] = /\/fd\/(\d+)$/.exec(guest.path) ?? [];
  const paths = [
    join(folder, 'again'),
    join(folder, `process/fd/${String(number)}`),
    `/proc/${String(guest.pid)}/task/${String(guest.pid)}/fd/${String(number)}`,
    `/proc//self/../${String(guest.pid)}/./fd/${String(number)}`,
  ];
  for (const path of paths)
    assert.match((await failureOf(source.register(registration(path)))).message, /userfaultfd/, path);
});

test('only the file that is watched is refused, not others of the same process', WATCHES.missing, async (t) => {
  const { source } = await startAgent(t);
  const other = MemoryFile.createMemfd('other', PAGES * K4);
  t.after(() => other.close());
  const guest = await startWatchedMemfd(t, PAGES, other.fd);
  guest.watch('missing');
  assert.equal(await reasonOf(source.register(registration(guest.path))), 'MEMORY_UNREADABLE');
  assert.equal(await reasonOf(source.register(registration(`/proc/${String(guest.pid)}/fd/3`))), 'none');
});

test('a memory file is held from Register on: its process may go before the pause', BUDGET, async (t) => {
  const { source } = await startAgent(t);
  const guest = await startWatchedMemfd(t, PAGES);
  const { generation } = await source.register(registration(guest.path));
  await guest.kill();
  const { zeroPages } = await source.setPaused({ vmId: 'vm', generation, paused: true });
  assert.equal(zeroPages, BigInt(PAGES));
  const failure = await failureOf(source.register(registration(guest.path)));
  assert.equal(failure.reason, ErrorReason.MEMORY_UNREADABLE);
});

for (const mode of ['missing', 'minor'] as const)
  test(
    `a file on a tmpfs that any process watches for ${mode} faults is refused until that process is done with it`,
    WATCHES[mode],
    async (t) => {
      const { source } = await startAgent(t);
      const guest = await startWatchedFile(t, join(sharedFolder(t), 'ram'), PAGES);
      guest.watch(mode);
      const failure = await failureOf(source.register(registration(guest.path)));
      assert.equal(failure.reason, ErrorReason.MEMORY_UNREADABLE);
      assert.match(failure.message, /userfaultfd .*Wait until that migration is completed/);
      assert(failure.message.includes(guest.path) && failure.message.includes(`process ${String(guest.pid)}`));
      guest.unwatch();
      assert.equal(await reasonOf(source.register(registration(guest.path))), 'none');
    },
  );

test(
  'of several files the one that is watched is named, by whatever name it was registered',
  WATCHES.missing,
  async (t) => {
    const { source } = await startAgent(t);
    const folder = sharedFolder(t);
    const names = ['first', 'second', 'alias'].map((name) => join(folder, name));
    const [first = '', second = '', alias = ''] = names;
    await startWatchedFile(t, first, PAGES);
    const guest = await startWatchedFile(t, second, PAGES);
    guest.watch('missing');
    linkSync(second, alias);
    const regions = [first, alias].map((path) => ({ ...region(K4, PAGES), path }));
    const failure = await failureOf(
      source.register({ vmId: 'vm', token: TOKEN, memory: { kind: { case: 'file', value: { path: '', regions } } } }),
    );
    assert.match(
      failure.message,
      new RegExp(`^memory file ${alias} is registered with a userfaultfd in process ${String(guest.pid)}`),
    );
  },
);

test('a memfd that another process than the named one watches is refused', WATCHES.missing, async (t) => {
  const { source } = await startAgent(t);
  const guest = await startWatchedMemfd(t, PAGES);
  const ours = MemoryFile.open(guest.path, { write: false });
  t.after(() => ours.close());
  const path = `/proc/${String(process.pid)}/fd/${String(ours.fd)}`;
  assert.equal(await reasonOf(source.register(registration(path))), 'none');
  guest.watch('missing');
  assert.match(
    (await failureOf(source.register(registration(path)))).message,
    new RegExp(`process ${String(guest.pid)}:`),
  );
});

test('processes that come and go meanwhile do not matter', WATCHES.missing, async (t) => {
  const { source } = await startAgent(t);
  const guest = await startWatchedFile(t, join(sharedFolder(t), 'ram'), PAGES);
  const stop = new AbortController();
  const churn = (async () => {
    while (!stop.signal.aborted) await once(spawn('/bin/true'), 'exit');
  })();
  for (let round = 0; round < 8; round++)
    assert.equal(await reasonOf(source.register(registration(guest.path))), 'none');
  guest.watch('missing');
  assert.equal(await reasonOf(source.register(registration(guest.path))), 'MEMORY_UNREADABLE');
  stop.abort();
  await churn;
});

test('device and inode are written as in maps', () => {
  assert.equal(markOf({ dev: 1n, ino: 99n }), ' 00:01 99 ');
  assert.equal(markOf({ dev: (0x103n << 8n) | (0x123n << 20n) | 0x45n, ino: 7n }), ' 103:12345 7 ');
});

function sharedFolder(t: TestContext): string {
  const folder = mkdtempSync('/dev/shm/pagewake-trapped-');
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

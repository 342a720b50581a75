/** A source agent that dies and is started again on the same state folder. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { openChannel } from '@pagewake/agent-kit';
import { MemoryFile } from '@pagewake/native';
import { createClient, FaultsRequestSchema, PageService, SourceService } from '@pagewake/proto';
import { TOKEN } from '../test/agent.ts';
import { Conversation, Opening, reasonOf, zeroPages } from '../test/conversation.ts';
import { startDaemon } from '../test/daemon.ts';
import { decode, K4, makeMemfd, noise, startProcess } from '../test/guests.ts';
import { faults, memfd, region, type FaultStream, type Memory } from '../test/reading.ts';

const BUDGET = { timeout: 60_000 };
const PAGES = 16;

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-restart-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** An agent that can be killed and started again. */
async function restartable(t: TestContext) {
  const state = join(temporaryFolder(t), 'state');
  const start = async () => {
    const daemon = startDaemon(t, ['--listen', '127.0.0.1:0', '--state-dir', state]);
    const channel = openChannel(await daemon.address);
    t.after(() => channel.close());
    const source = createClient(SourceService, channel);
    const pages = createClient(PageService, channel);
    const open = (vmId: string, generation: number, destinationId = 'd1', waitUntilPaused = false): Opening =>
      new Opening(pages.open({ protocolVersion: 1, vmId, generation, token: TOKEN, destinationId, waitUntilPaused }));
    const read = async (session: Uint8Array, page: number): Promise<Buffer> => {
      const lane: FaultStream = new Conversation(pages.faults());
      lane.send(create(FaultsRequestSchema, { session }));
      lane.send(faults({ faultId: 1, page }));
      return decode((await lane.next()).frame);
    };
    return { daemon, source, pages, open, read };
  };
  return { state, start };
}

type Agent = Awaited<ReturnType<Awaited<ReturnType<typeof restartable>>['start']>>;

async function register(agent: Agent, memory: NonNullable<Memory>, vmId = 'vm'): Promise<number> {
  return (await agent.source.register({ vmId, token: TOKEN, memory })).generation;
}

async function killed({ daemon }: Agent): Promise<void> {
  daemon.kill('SIGKILL');
  await daemon.exit;
}

const MEMORIES: readonly [string, (t: TestContext) => Promise<{ memory: NonNullable<Memory>; expected: Buffer }>][] = [
  [
    'a memory file',
    async (t) => {
      const file = makeMemfd(t, PAGES * K4);
      file.write(3 * K4, noise(3));
      return { memory: memfd(file.path, region(K4, PAGES)), expected: noise(3) };
    },
  ],
  [
    'memory of a process',
    async (t) => {
      const child = await startProcess(t, PAGES);
      const regions = [{ geometry: { pageSizeBytes: K4, pageCount: PAGES }, address: BigInt(child.address) }];
      return { memory: { kind: { case: 'process', value: { pid: child.pid, regions } } }, expected: child.expected(3) };
    },
  ],
];

for (const [name, make] of MEMORIES) {
  test(
    `a VM that is served is served on by the next agent, to the same destination alone: ${name}`,
    BUDGET,
    async (t) => {
      const { memory, expected } = await make(t);
      const { start } = await restartable(t);
      const first = await start();
      const generation = await register(first, memory);
      await first.source.setPaused({ vmId: 'vm', generation, paused: true });
      const before = first.open('vm', generation);
      const acceptedBefore = await before.accepted();
      const told = zeroPages({ accepted: acceptedBefore, ...(await before.rest()) }, 0);
      assert.deepEqual(await first.read(acceptedBefore.session, 3), expected);
      await killed(first);

      const next = await start();
      const [vm] = (await next.source.list({})).vms;
      assert.deepEqual([vm?.state, vm?.generation, vm?.destinationId], [4, generation, 'd1'], 'SERVING');
      assert.equal(await reasonOf(next.source.setPaused({ vmId: 'vm', generation, paused: false })), 'PAGES_SERVED');
      assert.equal(await reasonOf(next.source.register({ vmId: 'vm', token: TOKEN, memory })), 'PAGES_SERVED');
      assert.equal(await reasonOf(next.source.release({ vmId: 'vm' })), 'PAGES_SERVED');
      assert.equal(await reasonOf(next.open('vm', generation, 'd2').accepted()), 'SECOND_DESTINATION');
      const again = next.open('vm', generation);
      const accepted = await again.accepted();
      assert.deepEqual(zeroPages({ accepted, ...(await again.rest()) }, 0), told);
      assert.deepEqual(await next.read(accepted.session, 3), expected);
      await next.pages.complete({ session: accepted.session });
      await killed(next);
      assert.deepEqual((await (await start()).source.list({})).vms, [], 'what is complete needs nobody');
    },
  );
}

test('a VM that runs or stands still unread is as it was, and may run again', BUDGET, async (t) => {
  const { start } = await restartable(t);
  const file = makeMemfd(t, PAGES * K4);
  const memory = memfd(file.path, region(K4, PAGES));
  const first = await start();
  const running = await register(first, memory, 'running');
  const paused = await register(first, memory, 'paused');
  await first.source.setPaused({ vmId: 'paused', generation: paused, paused: true });
  await killed(first);
  const next = await start();
  const vms = (await next.source.list({})).vms.map(({ vmId, state }) => [vmId, state] as const);
  assert.deepEqual(
    vms.toSorted(([a], [b]) => a.localeCompare(b)),
    [
      ['paused', 3],
      ['running', 1],
    ],
    'READY, REGISTERED',
  );
  await next.source.setPaused({ vmId: 'paused', generation: paused, paused: false });
  await next.source.setPaused({ vmId: 'running', generation: running, paused: true });
  const opening = next.open('running', running);
  await opening.accepted();
  await opening.rest();
});

test('a destination that waited is told of the pause by the next agent once it has come again', BUDGET, async (t) => {
  const { start } = await restartable(t);
  const first = await start();
  const generation = await register(first, memfd(makeMemfd(t, PAGES * K4).path, region(K4, PAGES)));
  await first.open('vm', generation, 'd1', true).accepted();
  await killed(first);
  const next = await start();
  assert.equal((await next.source.list({})).vms[0]?.destinationId, '');
  const opening = next.open('vm', generation, 'd1', true);
  await opening.accepted();
  await next.source.setPaused({ vmId: 'vm', generation, paused: true });
  await opening.rest();
  await killed(next);
  const last = await start();
  assert.equal(await reasonOf(last.source.setPaused({ vmId: 'vm', generation, paused: false })), 'PAGES_SERVED');
});

test(
  'an agent that is told to stop keeps what it has for the next one; what was released is gone',
  BUDGET,
  async (t) => {
    const { start } = await restartable(t);
    const file = makeMemfd(t, PAGES * K4);
    const first = await start();
    const generation = await register(first, memfd(file.path, region(K4, PAGES)));
    await register(first, memfd(file.path, region(K4, PAGES)), 'released');
    await first.source.release({ vmId: 'released' });
    first.daemon.kill('SIGTERM');
    assert.equal((await first.daemon.exit).code, 0);
    const vms = (await (await start()).source.list({})).vms;
    assert.deepEqual(
      vms.map((vm) => [vm.vmId, vm.generation]),
      [['vm', generation]],
    );
  },
);

test('memory that is another now, or gone, is not taken up, and the log says so', BUDGET, async (t) => {
  const { start } = await restartable(t);
  const path = join(temporaryFolder(t), 'ram');
  const write = (): void => {
    writeFileSync(path, '');
    truncateSync(path, PAGES * K4);
  };
  write();
  const first = await start();
  await register(first, memfd(path, region(K4, PAGES)), 'replaced');
  const gone = MemoryFile.createMemfd('gone', PAGES * K4);
  await register(first, memfd(`/proc/${String(process.pid)}/fd/${String(gone.fd)}`, region(K4, PAGES)), 'gone');
  await killed(first);
  const held = MemoryFile.open(path, { write: false });
  t.after(() => held.close());
  rmSync(path);
  write();
  gone.close();
  const next = await start();
  assert.deepEqual((await next.source.list({})).vms, []);
  next.daemon.kill('SIGTERM');
  const { stderr } = await next.daemon.exit;
  assert.match(stderr, /"vmId":"replaced".*its memory is another now/);
  assert.match(stderr, /"vmId":"gone".*cannot be opened/);
});

test('the folder is the agent’s alone: no token in it, no other user, no second agent', BUDGET, async (t) => {
  const { start, state } = await restartable(t);
  const first = await start();
  await register(first, memfd(makeMemfd(t, PAGES * K4).path, region(K4, PAGES)));
  assert.equal(statSync(state).mode & 0o777, 0o700);
  const records = readdirSync(state).filter((name) => name.endsWith('.json'));
  assert.equal(records.length, 1);
  for (const name of records) {
    assert.equal(statSync(join(state, name)).mode & 0o777, 0o600);
    assert.doesNotMatch(readFileSync(join(state, name), 'latin1'), /5a5a5a5a|WlpaWl/, 'the token');
  }
  const second = await startDaemon(t, ['--listen', '127.0.0.1:0', '--state-dir', state]).exit;
  assert.equal(second.code, 2);
  assert.match(second.stderr, /--state-dir: another agent uses/);
  await killed(first);
  chmodSync(state, 0o777);
  const third = await startDaemon(t, ['--listen', '127.0.0.1:0', '--state-dir', state]).exit;
  assert.match(third.stderr, /--state-dir: .*may be written by others/);
});

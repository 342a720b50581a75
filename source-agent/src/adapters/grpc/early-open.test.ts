/** An Open that comes before the VM is paused. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { BulkRequestSchema, FaultsRequestSchema } from '@pagewake/proto';
import { startAgent, TOKEN } from '../../../test/agent.ts';
import { Conversation, Opening, readOpen, reasonOf, zeroPages } from '../../../test/conversation.ts';
import { decode, K4, makeMemfd, noise } from '../../../test/guests.ts';
import { faults, memfd, range, region, type BulkStream, type FaultStream } from '../../../test/reading.ts';

const BUDGET = { timeout: 20_000 };
/** Twenty agents, one after the other. */
const ROUNDS_BUDGET = { timeout: 3 * BUDGET.timeout };
const PAGES = 16;

/** A registered VM that runs. Page 3 is data. */
async function runningVm(t: TestContext) {
  const agent = await startAgent(t);
  const file = makeMemfd(t, PAGES * K4);
  file.write(3 * K4, noise(3));
  const registration = { vmId: 'vm', token: TOKEN, memory: memfd(file.path, region(K4, PAGES)) };
  const { generation } = await agent.source.register(registration);
  const open = (destinationId = 'd1', of = generation): Opening =>
    new Opening(
      agent.connect().open({
        protocolVersion: 1,
        vmId: 'vm',
        generation: of,
        token: TOKEN,
        destinationId,
        waitUntilPaused: true,
      }),
    );
  const setPaused = (paused: boolean) => agent.source.setPaused({ vmId: 'vm', generation, paused });
  const destination = async () => (await agent.source.list({})).vms[0]?.destinationId;
  /** Resolves once the agent has seen that the destination is gone. */
  const left = async (): Promise<void> => {
    while ((await destination()) !== '') await new Promise((resolve) => setTimeout(resolve, 5));
  };
  return { agent, file, registration, generation, open, setPaused, destination, left };
}

const session = (of: Uint8Array) => create(FaultsRequestSchema, { session: of });

test('it is accepted at once, and told of the pause with the holes as they are then', BUDGET, async (t) => {
  const { file, open, setPaused, destination } = await runningVm(t);
  const opening = open();
  const accepted = await opening.accepted();
  assert.equal(accepted.dataPages, 0n, 'nobody knows yet');
  assert.deepEqual([accepted.session.length, accepted.regions.length], [16, 1]);
  assert.equal(await destination(), 'd1');
  // The guest runs on, and writes.
  file.write(7 * K4, noise(7));
  const { dataPages, zeroPages: zeros } = await setPaused(true);
  const rest = await opening.rest();
  assert.deepEqual([rest.paused.dataPages, dataPages, zeros], [2n, 2n, 14n]);
  const expected = Array.from({ length: PAGES }, (_, page) => page).filter((page) => page !== 3 && page !== 7);
  assert.deepEqual(zeroPages({ accepted, ...rest }, 0), expected);
  assert.equal(await reasonOf(setPaused(false)), 'PAGES_SERVED');
});

test('lanes may be there before the pause, and serve after it on the same streams', BUDGET, async (t) => {
  const { agent, open, setPaused } = await runningVm(t);
  const opening = open();
  const accepted = await opening.accepted();
  const lane: FaultStream = new Conversation(agent.pages.faults());
  lane.send(session(accepted.session));
  const bulk: BulkStream = new Conversation(agent.connect().bulk());
  bulk.send(create(BulkRequestSchema, { session: accepted.session }));
  await agent.source.list({});
  await setPaused(true);
  await opening.rest();
  lane.send(faults({ faultId: 1, page: 3 }));
  assert.deepEqual(decode((await lane.next()).frame), noise(3));
  bulk.send(range(1, 3, 1));
  assert.deepEqual(decode((await bulk.next()).frame), noise(3));
});

test('whoever asks for pages before the pause is refused on that stream alone', BUDGET, async (t) => {
  const { agent, open, setPaused } = await runningVm(t);
  const opening = open();
  const accepted = await opening.accepted();
  const lane: FaultStream = new Conversation(agent.pages.faults());
  lane.send(session(accepted.session));
  lane.send(faults({ faultId: 1, page: 3 }));
  assert.equal((await lane.failure()).reasonName, 'VM_NOT_PAUSED');
  const bulk: BulkStream = new Conversation(agent.pages.bulk());
  bulk.send(create(BulkRequestSchema, { session: accepted.session, range: { region: 0, firstPage: 0, pageCount: 1 } }));
  assert.equal((await bulk.failure()).reasonName, 'VM_NOT_PAUSED');
  assert.equal(await reasonOf(agent.pages.complete({ session: accepted.session })), 'VM_NOT_PAUSED');
  await setPaused(true);
  await opening.rest();
});

test(
  'a VM that is said to run is no end of the wait; a destination that has been told is one of running here',
  BUDGET,
  async (t) => {
    const { open, setPaused } = await runningVm(t);
    const opening = open();
    await opening.accepted();
    await setPaused(false);
    await setPaused(true);
    await opening.rest();
    assert.equal(await reasonOf(setPaused(false)), 'PAGES_SERVED');
  },
);

test('without the wish to wait it is refused, and disturbs nobody who waits', BUDGET, async (t) => {
  const { agent, generation, open, setPaused } = await runningVm(t);
  const opening = open();
  await opening.accepted();
  const wish = { protocolVersion: 1, vmId: 'vm', generation, token: TOKEN, destinationId: 'd1' };
  assert.equal(await reasonOf(readOpen(agent.pages.open(wish))), 'VM_NOT_PAUSED');
  await setPaused(true);
  await opening.rest();
});

test('the same destination may come again while it waits: its older stream and lanes end', BUDGET, async (t) => {
  const { agent, open, setPaused, destination } = await runningVm(t);
  const first = open();
  const lane: FaultStream = new Conversation(agent.pages.faults());
  lane.send(session((await first.accepted()).session));
  const second = open();
  await second.accepted();
  assert.equal((await first.failure()).reasonName, 'CANCELLED');
  assert.equal((await lane.failure()).reasonName, 'CANCELLED');
  assert.equal(await reasonOf(open('d2').accepted()), 'SECOND_DESTINATION');
  assert.equal(await destination(), 'd1');
  await setPaused(true);
  await second.rest();
});

test('a destination that leaves before the pause makes room for another, and its lanes end', BUDGET, async (t) => {
  const { agent, open, setPaused, left } = await runningVm(t);
  const first = open('d1');
  const lane: FaultStream = new Conversation(agent.pages.faults());
  lane.send(session((await first.accepted()).session));
  first.cancel();
  await left();
  assert.equal((await lane.failure()).reasonName, 'CANCELLED');
  const second = open('d2');
  await second.accepted();
  await setPaused(true);
  await second.rest();
});

test('a destination that left before the pause does not keep the VM from running on', BUDGET, async (t) => {
  const { open, setPaused, left } = await runningVm(t);
  const opening = open();
  await opening.accepted();
  opening.cancel();
  await left();
  await setPaused(true);
  await setPaused(false);
});

test('a cancel that meets the pause ends in one of two ways: told, or left', ROUNDS_BUDGET, async (t) => {
  for (let round = 0; round < 20; round++) {
    const { open, setPaused } = await runningVm(t);
    const opening = open();
    await opening.accepted();
    const cancel = (): void => opening.cancel();
    if (round % 2 === 0) cancel();
    else setImmediate(cancel);
    await setPaused(true);
    const again = await reasonOf(setPaused(false));
    if (again === 'none') await setPaused(true);
    // Whoever was told may come back; whoever left blocks nobody.
    const next = open(again === 'none' ? 'd2' : 'd1');
    await next.accepted();
    await next.rest();
  }
});

test('Register anew and Release end the wait with what has happened', BUDGET, async (t) => {
  const { agent, registration, open } = await runningVm(t);
  const first = open();
  await first.accepted();
  const { generation } = await agent.source.register(registration);
  assert.equal((await first.failure()).reasonName, 'STALE_GENERATION');
  const second = open('d2', generation);
  await second.accepted();
  await agent.source.release({ vmId: 'vm', generation });
  assert.equal((await second.failure()).reasonName, 'UNKNOWN_VM');
});

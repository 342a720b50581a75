/** What a VMM says of stage-2 faults, and what it holds the agent to, without an agent: nothing is served. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { handOver, type Handover } from './hand-over.ts';
import { temporaryFolder, Vmm } from './vmm.ts';

const EXITS = ['--stage2', 'exit', '--bitmap'];
const SECRET_FREE = [...EXITS, '--register', 'missing,minor', '--handshake', 'secret-free'];
const WORD = 'no_exitless_apf';
/** An emulated guest, or an emulated machine, takes its time. */
const BUDGET = { timeout: 120_000 };

interface Fault {
  readonly id?: number;
  readonly vcpu: number;
  readonly offset: number;
  readonly gpa?: number;
  readonly flags: number;
  readonly token?: null;
}

/** Region i begins at 1 GiB + 2 GiB * i of guest addresses, and at 8 MiB * i of the image. */
const gpaOf = (offset: number): number => {
  const region = Math.floor(offset / (8 << 20));
  return 2 ** 30 + region * 2 ** 31 + (offset - region * (8 << 20));
};

/** Resolves once `find` has something in what came; fails if the VMM ends before. */
async function until<T>(made: Handover, find: (text: string) => T | undefined): Promise<T> {
  const { agent, vmm } = made;
  let ended: string | undefined;
  void vmm.exit.then(({ code, stderr }) => (ended = `the VMM ended with ${code}: ${stderr}`));
  for (;;) {
    const found = find(agent.received());
    if (found !== undefined) return found;
    if (ended !== undefined) assert.fail(ended);
    await sleep(10);
  }
}

const heard = (made: Handover, what: RegExp): Promise<string> =>
  until(made, (text) => (what.test(text) ? text : undefined));

/** The faults of the first lines that ask for one; both vCPUs have one at once. */
function asked(made: Handover): Promise<readonly Fault[]> {
  return until(made, (text) => {
    const messages = text
      .split('\n')
      .slice(1, -1)
      .map((line) => JSON.parse(line) as Fault & { readonly faults?: readonly Fault[] });
    const faults = messages.flatMap((message) => message.faults ?? [message]);
    return faults.length >= 2 ? faults : undefined;
  });
}

test('vCPUs at ring 0 do the same work, and every page is right', BUDGET, async (t) => {
  const args = ['--ram', '4M', '--workload', '128K', '--io-pages', '16', '--vcpus', '2', '--ring', '0'];
  const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', args);
  if (vmm === null) return;
  await vmm.untilFilled();
  for (let round = 0; round < 3; round++) assert.equal((await vmm.ok('verify')).wrong, 0);
});

test('with a bitmap the handshake names it last, and says where the guest sees each region', BUDGET, async (t) => {
  const made = await handOver(t, [], EXITS);
  if (made === null) return;
  const text = JSON.parse(made.handshake) as { fds: string[]; regions: { offset: number; gpa_start: number }[] };
  assert.deepEqual(text.fds, ['uffd', 'memfd', 'bitmap']);
  for (const region of text.regions) assert.equal(region.gpa_start, gpaOf(region.offset));
});

test('a stage-2 fault is asked for with offset and guest address', BUDGET, async (t) => {
  const made = await handOver(t, [], EXITS);
  if (made === null) return;
  made.agent.send({ type: 'ready' });
  for (const { gpa, offset } of await asked(made)) assert.equal(gpa, gpaOf(offset));
});

for (const type of ['resolved', 'all_resolved'])
  test(`an answer by ${type} for a page whose bit is set ends the VMM`, BUDGET, async (t) => {
    const made = await handOver(t, [], EXITS);
    if (made === null) return;
    made.agent.send({ type: 'ready' });
    const pages = (await asked(made)).map(({ id, offset }) => ({ id, offset, len: 4096 }));
    made.agent.send(type === 'resolved' ? { type, ...pages[0] } : { type, pages });
    assert.equal((await made.vmm.exit).code, 3);
    const failed = made.vmm.events.find((e) => e.event === 'failed');
    assert.equal(failed?.reason, 'BITMAP');
    assert.match(failed.message ?? '', new RegExp(`page at ${pages[0]?.offset} while its bit is set`));
  });

test('an agent that is done while bits are set ends the VMM with their number', BUDGET, async (t) => {
  const made = await handOver(t, [], EXITS);
  if (made === null) return;
  made.agent.send({ type: 'ready' });
  await made.loading;
  made.agent.send({ type: 'done' });
  assert.equal((await made.vmm.exit).code, 3);
  assert.match(made.vmm.events.find((e) => e.event === 'failed')?.message ?? '', /is done, and 4096 bits/);
});

for (const form of ['both', 'word-in-parts', 'word-joined', 'apf-socket', 'in-parts', 'newline'])
  test(
    `secret-free, ${form}: array, word, requests as objects back to back; the guest waits for nothing`,
    BUDGET,
    async (t) => {
      const made = await handOver(t, [], [...SECRET_FREE, '--form', form]);
      if (made === null) return;
      assert.equal((await made.loading).ok, true);
      const text = await heard(made, /\}\{.*\}/);
      const word = text.indexOf(WORD);
      const regions = JSON.parse(text.slice(0, word)) as Record<string, unknown>[];
      assert.deepEqual(
        regions.map((r) => [r['offset'], r['size'], r['gpa_start'], r['is_guest_memfd']]),
        [0, 8 << 20].map((offset) => [offset, 8 << 20, gpaOf(offset), false]),
      );
      const objects = text.slice(word + WORD.length);
      const requests = JSON.parse(`[${objects.replaceAll('}{', '},{')}]`) as Fault[];
      assert.deepEqual(Object.keys(requests[0] ?? {}), ['vcpu', 'offset', 'flags', 'token']);
      assert.deepEqual(new Set(requests.map((request) => request.vcpu)), new Set([0, 1]));
    },
  );

test(
  'secret-free: an answer for a page whose bit is set ends the VMM, also where it comes in pieces',
  BUDGET,
  async (t) => {
    const made = await handOver(t, [], SECRET_FREE);
    if (made === null) return;
    const text = await heard(made, /"token":null\}/);
    const { vcpu, offset, flags } = JSON.parse(/\{"vcpu".*?\}/.exec(text)?.[0] ?? '') as Fault;
    const answer = JSON.stringify({ vcpu, offset, len: 4096, flags, token: null, zero: false });
    made.agent.write(answer.slice(0, 20));
    await sleep(20);
    made.agent.write(answer.slice(20));
    assert.equal((await made.vmm.exit).code, 3);
    assert.equal(made.vmm.events.find((e) => e.event === 'failed')?.reason, 'BITMAP');
  },
);

const refusable: readonly (readonly [string, RegExp])[] = [
  ['two-descriptors', /no_exitless_apf$/],
  ['fields-missing', /^(?!.*gpa_start).*no_exitless_apf$/],
  ['wrong-kind', /"is_guest_memfd":true.*no_exitless_apf$/],
  ['exitless', /\]exitless_apf:2$/],
  ['framed', /no_exitless_apf[^{}]+$/],
  ['half', /^\[\{[^\]]*$/],
];
for (const [form, text] of refusable)
  test(`secret-free, ${form}: what no agent takes leaves the guest where it is`, BUDGET, async (t) => {
    const made = await handOver(t, [], [...SECRET_FREE, '--form', form]);
    if (made === null) return;
    await heard(made, text);
    assert.equal((await made.vmm.ok('stats')).state, 'paused');
    made.agent.close();
    assert.equal((await made.loading).ok, false);
    assert.equal((await made.vmm.exit).code, 3);
  });

for (const memory of ['memfd', 'guest_memfd'])
  test(
    `KVM's own bitmap on ${memory}: an exit names the guest's address, and says that it is by the bitmap`,
    BUDGET,
    async (t) => {
      const made = await handOver(
        t,
        ['--ring', '0', '--workload', '256K'],
        ['--memory', memory, '--stage2', 'userfault'],
      );
      if (made === null) return;
      assert.deepEqual((JSON.parse(made.handshake) as { fds: string[] }).fds, ['uffd', memory, 'bitmap']);
      made.agent.send({ type: 'ready' });
      for (const { gpa, offset, flags } of await asked(made)) {
        assert.equal(gpa, gpaOf(offset));
        assert.equal(flags & 16, 16);
      }
      assert.equal((await made.vmm.ok('stats')).wrong, 0);
    },
  );

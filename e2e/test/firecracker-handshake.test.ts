/**
 * Firecracker's handshake, its main branch's, as docs/protocol.md has it: what the destination agent must take, with every page verified, and
 * what it must refuse, and live on. One pair of agents meets all of it, one migration after the other.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { arrives, fails, type Handover, type Outcome } from '../firecracker/migration.ts';
import { makeImage, type Image } from '../firecracker/images.ts';
import { leave, refusalOf } from '../firecracker/peers.ts';
import { whyNoHugePages } from '../lib/machine.ts';
import { startPair, temporaryFolder, vmm as startVmm, type Pair } from '../lib/migration.ts';
import type { Vmm } from '../lib/vmm.ts';

const GUEST = ['--workload', '6M', '--vcpu-rate', '20000', '--io-pages', '512'];
const BALLOON_PAGES = 2000;

interface Rig {
  readonly pair: Pair;
  readonly image: Image;
}

interface Good extends Omit<Handover, 'image'> {
  readonly name: string;
  readonly also?: (outcome: Outcome) => void | Promise<void>;
}

const form = (name: string): readonly string[] => ['--form', name];

const GOOD: readonly Good[] = [
  {
    name: 'page_size and page_size_kib, both in bytes, with a userfaultfd that does not block',
    also: ({ vmm, summary }) => {
      assert.equal(summary.tier, 'anonymous');
      assert.deepEqual([summary.faults.byWrite, summary.faults.byContinue], [0, 0]);
      // The VMM keeps its copy, so its flags can be looked at from outside; they belong to the file, not to the copy.
      assert.ok(userfaultfdFlags(vmm.program.pid) & 0o4000);
    },
  },
  { name: 'page_size alone', flags: form('page-size') },
  { name: 'page_size_kib alone: bytes despite its name', flags: form('page-size-kib') },
  { name: 'page_size_kib says another size: page_size holds', flags: form('contradicting') },
  { name: 'fields that nobody knows', flags: form('more-fields') },
  { name: 'a newline at its end', flags: form('newline') },
  { name: 'in two pieces, the descriptor with the first', flags: form('in-parts') },
  {
    name: 'several regions, not side by side in the VMM',
    also: async ({ vmm }) => {
      const { regions } = await vmm.control.send('memory');
      const places = regions as { readonly address: number; readonly size: number }[];
      assert.equal(places.length, 3);
      const sorted = places.toSorted((a, b) => a.address - b.address);
      for (const [i, { address, size }] of sorted.entries())
        if (i + 1 < sorted.length) assert.ok(address + size < (sorted[i + 1]?.address ?? 0));
    },
  },
  {
    name: 'the process that connected is not the one that has the memory',
    flags: form('by-another'),
    also: ({ vmm }) => assert.equal(childrenOf(vmm.program.pid).length, 1),
  },
];

/** Of the userfaultfd that a process has. */
function userfaultfdFlags(pid: number): number {
  for (const fd of readdirSync(`/proc/${pid}/fdinfo`)) {
    const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
    if (/^API:/m.test(info)) return Number.parseInt(/^flags:\s*([0-7]+)/m.exec(info)?.[1] ?? '', 8);
  }
  return assert.fail('the VMM has no userfaultfd');
}

const childrenOf = (pid: number): readonly string[] =>
  readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean),
  );

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The source's agent stands still most of the time, so that pages are on their way for as long as the balloon gives others back. */
async function limping({ pair }: Rig, vmm: Vmm): Promise<void> {
  const over = new AbortController();
  const balloon = vmm.program.waitFor('the balloon', (line) => line['event'] === 'balloon').finally(() => over.abort());
  await vmm.program.waitFor('the handover', (line) => line['event'] === 'handed_over');
  while (!over.signal.aborted) {
    pair.source.program.signal('SIGSTOP');
    await sleep(40);
    pair.source.program.signal('SIGCONT');
    await sleep(10);
  }
  await balloon;
}

async function balloon(t: TestContext, rig: Rig): Promise<void> {
  const { summary, verified } = await arrives(t, rig.pair, {
    image: rig.image,
    flags: ['--balloon', String(BALLOON_PAGES)],
    during: (vmm) => limping(rig, vmm),
  });
  assert.ok(summary.faults.removedEvents > 0, JSON.stringify(summary));
  assert.ok(Number(verified['balloon_pages']) > 0);
}

interface Refused {
  readonly name: string;
  readonly text: string;
  readonly told: RegExp;
}

const region = { base_host_virt_addr: 2 ** 40, size: 16 << 20, offset: 0, page_size: 4096 };

/** What needs no descriptor to be wrong. The agent says why before it closes, also to who may never read it. */
const REFUSED: readonly Refused[] = [
  { name: 'another protocol', text: 'GET / HTTP/1.1\r\n\r\n', told: /is not JSON: it begins with \\"GET/ },
  { name: 'bytes that are no text', text: '\0\x01\x02\x7f', told: /is not JSON/ },
  { name: 'brackets around what is no JSON', text: '[{"size":}]', told: /is not JSON/ },
  { name: 'no regions', text: '[]', told: /no regions|0 descriptors/ },
  { name: 'a region without an address', text: '[{"size":4096,"offset":0}]', told: /0\.base_host_virt_addr/ },
  { name: 'no descriptor', text: JSON.stringify([region]), told: /0 descriptors came with a Firecracker handshake/ },
  { name: 'more text than any handshake has', text: `[${' '.repeat(256 * 1024)}`, told: /longer than 262144 bytes/ },
];

/** What comes before the VMM on one socket; then the VMM is served as if nothing had been. */
async function refused(t: TestContext, { pair, image }: Rig): Promise<void> {
  const before = async (socket: string): Promise<void> => {
    for (const { name, text, told } of REFUSED) {
      const answer = await refusalOf(socket, text);
      assert.match(answer, told, name);
      assert.match(answer, /"reason":"BAD_HANDSHAKE"/, name);
    }
    await leave(socket, '');
    await leave(socket, JSON.stringify([region]).slice(0, 30));
  };
  await arrives(t, pair, { image, before });
}

/** A VMM whose handshake is not taken, on the socket of a migration that waits for another. */
async function wrongVmm(t: TestContext, { pair, image }: Rig, socket: string, flags: readonly string[]): Promise<Vmm> {
  const wrong = await startVmm(t, 'destination', pair.folder, ['--handshake', 'firecracker', ...flags]);
  wrong.control.send(`load ${image.path}.state ${socket}`).catch(() => undefined);
  return wrong;
}

async function refusedWithDescriptors(t: TestContext, rig: Rig): Promise<void> {
  const before = async (socket: string): Promise<void> => {
    const two = await wrongVmm(t, rig, socket, form('two-descriptors'));
    const told = await two.program.waitFor('the refusal', (line) => line['event'] === 'failed');
    assert.match(String(told['message']), /2 descriptors came with a Firecracker handshake; it has one/);
    await two.program.exited;
    const half = await wrongVmm(t, rig, socket, form('half'));
    await half.program.waitFor('its half', (line) => line['event'] === 'handed_over');
    await half.program.stop();
  };
  await arrives(t, rig.pair, { image: rig.image, before });
}

async function silent(t: TestContext, { pair, image }: Rig, text: string): Promise<void> {
  const before = async (socket: string): Promise<void> =>
    assert.match(await refusalOf(socket, text), /no whole handshake within 10 s/);
  await arrives(t, pair, { image, before });
}

async function notAUserfaultfd(t: TestContext, { pair, image }: Rig): Promise<void> {
  const error = await fails(t, pair, { image, flags: form('no-userfaultfd') });
  assert.equal(error.reasonName, 'BAD_HANDSHAKE');
  assert.match(error.message, /named uffd is not a userfaultfd/);
}

/** With its source standing still nothing has come when the VMM goes. */
async function goneAfterwards(t: TestContext, { pair, image }: Rig): Promise<void> {
  const during = async (vmm: Vmm): Promise<void> => {
    pair.source.program.signal('SIGSTOP');
    try {
      await vmm.program.waitFor('the handover', (line) => line['event'] === 'handed_over');
      vmm.program.signal('SIGKILL');
      await vmm.program.exited;
      await pair.destination.program.waitFor('its end', (line) => /VMM exited/.test(JSON.stringify(line)));
    } finally {
      pair.source.program.signal('SIGCONT');
    }
  };
  const error = await fails(t, pair, { image, during });
  assert.equal(error.reasonName, 'VMM_EXITED', error.message);
}

test('Firecracker’s handshake', { concurrency: 2 }, async (t) => {
  const folder = temporaryFolder(t);
  const flags = ['--ram', '36M', '--balloon-area', '9M', ...GUEST];
  const rig: Rig = { pair: await startPair(t), image: makeImage(folder, 'memory', { regions: 3, flags }) };

  // Beside all the others: it is nothing but waiting.
  const patient = t.test(
    'who says nothing, or half of it, is sent away after a while, and the next is served',
    async (t) => {
      await Promise.all(['', '[{"size":'].map((text) => silent(t, rig, text)));
    },
  );
  for (const { name, also, ...handover } of GOOD)
    await t.test(`taken: ${name}`, async (t) => {
      const outcome = await arrives(t, rig.pair, { image: rig.image, ...handover });
      await also?.(outcome);
    });
  await t.test('a range that the balloon gave back reads as zeros, while its pages are on their way', (t) =>
    balloon(t, rig),
  );
  const skip = whyNoHugePages() ?? false;
  await t.test('taken: pages of 2 MiB, resolved whole', { skip }, async (t) => {
    const huge = makeImage(folder, 'huge', { pageSizeBytes: 2 << 20, flags: ['--ram', '48M', ...GUEST] });
    const { summary } = await arrives(t, rig.pair, { image: huge, flags: ['--memory', 'memfd'] });
    assert.equal(summary.pages.total, 24);
  });

  await t.test(`refused, and the next is served: ${REFUSED.map(({ name }) => name).join('; ')}; gone at once`, (t) =>
    refused(t, rig),
  );
  await t.test(
    'refused, and the next is served: two descriptors; gone in the middle, its descriptor already sent',
    (t) => refusedWithDescriptors(t, rig),
  );
  await t.test('a descriptor that is no userfaultfd fails the migration by name, and the next is served', async (t) => {
    await notAUserfaultfd(t, rig);
    await arrives(t, rig.pair, { image: rig.image });
  });
  await t.test('a VMM that ends after its handshake fails the migration by name, and the next is served', async (t) => {
    await goneAfterwards(t, rig);
    await arrives(t, rig.pair, { image: rig.image });
  });
  await patient;
});

/**
 * The handshake and the fault messages of Firecracker's secret-free branch, as docs/protocol.md has them: what the destination agent must take, with every
 * page verified, and what it must refuse, and live on. Here the memory is a memfd; a guest_memfd takes the kernel of `npm run lab` (guest-memfd.test.ts).
 */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { makeImage, type Image } from '../firecracker/images.ts';
import { arrives, fails, type Handover, type Outcome } from '../firecracker/migration.ts';
import { whyNoKvm } from '../lib/machine.ts';
import { startPair, temporaryFolder, vmm as startVmm, type Pair } from '../lib/migration.ts';
import { whyNoOption, type Vmm } from '../lib/vmm.ts';

const FLAGS = ['--memory', 'memfd', '--register', 'missing,minor', '--stage2', 'exit', '--bitmap'];
const GUEST = ['--ram', '36M', '--balloon-area', '9M', '--workload', '6M', '--vcpu-rate', '20000', '--io-pages', '512'];

interface Rig {
  readonly pair: Pair;
  readonly image: Image;
}

const handover = (image: Image, flags: readonly string[] = []): Handover => ({
  image,
  handshake: 'secret-free',
  flags: [...FLAGS, ...flags],
});

/** Every vCPU's first touch of a page was asked for, and answered. */
function byMessages({ summary: { faults } }: Outcome): void {
  assert.ok(faults.stage2 > 0 && faults.byWrite > 0 && faults.byCopy > 0, JSON.stringify(faults));
}

const TAKEN: readonly (readonly [form: string, name: string])[] = [
  ['both', 'the word behind the array, fault messages back to back'],
  ['page-size', 'page_size alone'],
  ['more-fields', 'fields that nobody knows'],
  ['newline', 'a newline behind the array'],
  ['in-parts', 'the array in two pieces, the descriptors with the first'],
  ['word-in-parts', 'the word in two pieces'],
  ['word-joined', 'the word in one piece with the array'],
  ['apf-socket', 'an apf.socket was looked for before'],
  ['by-another', 'another process connects than the one that has the memory'],
];

const REFUSED: readonly (readonly [form: string, told: RegExp])[] = [
  ['two-descriptors', /2 descriptors came with a Firecracker handshake; it has one/],
  ['fields-missing', /gpa_start/],
  ['exitless', /exitless asynchronous page faults.*without an apf\.socket/],
];

/** One after the other on the socket of a migration that waits; then its VMM is served as if nothing had been. */
async function refused(t: TestContext, { pair, image }: Rig): Promise<void> {
  const before = async (socket: string): Promise<void> => {
    for (const [form, told] of REFUSED) {
      const flags = ['--handshake', 'secret-free', ...FLAGS, '--form', form];
      const wrong = await startVmm(t, 'destination', pair.folder, flags);
      wrong.control.send(`load ${image.path}.state ${socket}`).catch(() => undefined);
      // Its word may find the channel closed already, so that it dies of that and not of what it was told.
      await pair.destination.program.waitFor(`the refusal of ${form}`, (line) => told.test(String(line['error'])));
      await wrong.program.exited;
    }
  };
  await arrives(t, pair, { ...handover(image), before });
}

test('Firecracker’s secret-free handshake', { skip: whyNoKvm() ?? whyNoOption('secret-free') ?? false }, async (t) => {
  const image = makeImage(temporaryFolder(t), 'memory', { regions: 3, flags: GUEST });
  const rig: Rig = { pair: await startPair(t), image };

  for (const [form, name] of TAKEN)
    await t.test(`taken: ${name}`, async (t) =>
      byMessages(await arrives(t, rig.pair, handover(image, ['--form', form]))),
    );
  await t.test('a range that the balloon gave back reads as zeros', async (t) => {
    const { summary } = await arrives(t, rig.pair, handover(image, ['--balloon', '2000']));
    assert.ok(summary.faults.removedEvents > 0, JSON.stringify(summary.faults));
  });
  await t.test(
    'refused with what to do, and the next is served: two descriptors, a field missing, exitless faults',
    (t) => refused(t, rig),
  );
  await t.test('a file that is not what is_guest_memfd says fails the migration, and the next is served', async (t) => {
    const { reasonName, message } = await fails(t, rig.pair, handover(image, ['--form', 'wrong-kind']));
    assert.equal(reasonName, 'BAD_HANDSHAKE');
    assert.match(message, /guest_memfd was expected/);
    await arrives(t, rig.pair, handover(image));
  });
  await t.test('framed fault messages fail the migration by name, nobody waits, and the next is served', async (t) => {
    // Killed: it cannot be told.
    const during = async ({ program }: Vmm): Promise<void> => assert.equal(await program.exited, 128);
    const { reasonName, message } = await fails(t, rig.pair, { ...handover(image, ['--form', 'framed']), during });
    assert.equal(reasonName, 'BAD_HANDSHAKE');
    assert.match(message, /frames its fault messages/);
    await arrives(t, rig.pair, handover(image));
  });
  await t.test('an agent that is stopped ends, though a VMM that is whole still has its channel', async (t) => {
    await arrives(t, rig.pair, handover(image));
    assert.equal(await rig.pair.destination.program.stop(), 0);
  });
});

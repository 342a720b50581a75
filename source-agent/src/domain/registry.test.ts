import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import type { GuestImage, ZeroRunList } from './guest-image.ts';
import { VmRegistry } from './registry.ts';
import type { Session } from './session.ts';
import { transition, type VmState } from './vm-state.ts';

const TOKEN = Buffer.alloc(16, 7);
const NO_ZEROS: readonly ZeroRunList[] = [{ firstPages: new Uint32Array(0), pageCounts: new Uint32Array(0) }];

/** The registry's laws are about order and ownership, so this memory only knows whether it is open and how often it was looked at. */
class FakeImage implements GuestImage {
  readonly regions = [{ pageSizeBytes: 4096, pageCount: 4 }];
  readonly identity = 'fake';
  closes = 0;
  looks = 0;
  error: PagewakeError | undefined;

  readRun(): void {}
  holes(): readonly ZeroRunList[] {
    this.looks++;
    if (this.error !== undefined) throw this.error;
    return NO_ZEROS;
  }
  share(): never {
    throw new Error('no thread but this one reads it');
  }

  close(): void {
    this.closes++;
  }
}

const open = (registry: VmRegistry, generation: number, destinationId = 'd1', token: Uint8Array = TOKEN): Session =>
  registry.open({ vmId: 'vm', generation, token, destinationId, regions: [], waitUntilPaused: false });
const openEarly = (registry: VmRegistry, generation: number, destinationId = 'd1'): Session =>
  registry.open({ vmId: 'vm', generation, token: TOKEN, destinationId, regions: [], waitUntilPaused: true });

/** A call, so that the compiler does not take it for what it was a moment ago. */
const endOf = (session: Session): ErrorReason | undefined => session.ended?.reason;

function ready(registry: VmRegistry, image = new FakeImage()): { generation: number; image: FakeImage } {
  const { generation } = registry.register('vm', TOKEN, image);
  registry.setPaused('vm', generation, true);
  return { generation, image };
}

function reasonOf(what: () => unknown): string {
  try {
    what();
  } catch (error) {
    assert(error instanceof PagewakeError, String(error));
    return error.reasonName;
  }
  return 'none';
}

test('a VM moves only along the table, and completed is final', () => {
  const states: readonly VmState[] = ['registered', 'ready', 'serving', 'completed'];
  const allowed = new Set(['registered>ready', 'ready>serving', 'ready>registered', 'serving>completed']);
  for (const from of states) {
    for (const to of states) {
      if (allowed.has(`${from}>${to}`)) assert.equal(transition(from, to), to);
      else assert.throws(() => transition(from, to), /cannot go from/);
    }
  }
});

test('a generation rises by one with every Register, also across a Release, and is never given twice', () => {
  const registry = new VmRegistry(() => 100);
  const next = (vmId: string): number => registry.register(vmId, TOKEN, new FakeImage()).generation;
  assert.deepEqual([next('a'), next('a'), next('b')], [100, 101, 100]);
  registry.release('a', 0, false);
  assert.equal(next('a'), 102);
});

test('by default generations begin where an agent that was restarted has not been', () => {
  const generation = new VmRegistry().register('a', TOKEN, new FakeImage()).generation;
  assert(generation > 1_700_000_000 && generation <= 0xffff_ffff);
});

test('Register fences the older generation: its session ends, its memory closes, its number is stale', () => {
  const registry = new VmRegistry(() => 1);
  const first = ready(registry);
  const session = open(registry, first.generation);
  let told: PagewakeError | undefined;
  session.attach((error) => (told = error));
  const second = ready(registry);
  assert.equal(second.generation, first.generation + 1);
  assert.equal(told?.reason, ErrorReason.STALE_GENERATION);
  assert.equal(registry.session(session.id).ended?.reason, ErrorReason.STALE_GENERATION);
  assert.equal(first.image.closes > 0, true);
  assert.equal(second.image.closes, 0);
  assert.equal(
    reasonOf(() => open(registry, first.generation)),
    'STALE_GENERATION',
  );
  assert.equal(
    reasonOf(() => registry.setPaused('vm', first.generation, true)),
    'STALE_GENERATION',
  );
});

test('unless registered: a VM in any state but completed is refused and stays as it is, and its state is told', () => {
  const registry = new VmRegistry(() => 1);
  const image = new FakeImage();
  const again = (): unknown => registry.register('vm', TOKEN, image, true);
  const { generation } = registry.register('vm', TOKEN, new FakeImage(), true);
  assert.throws(again, {
    reasonName: 'MIGRATION_EXISTS',
    metadata: { vm_id: 'vm', state: 'registered', generation: '1' },
  });
  assert.equal(image.closes, 1, 'an image that is refused is closed');
  registry.setPaused('vm', generation, true);
  assert.throws(again, { metadata: { vm_id: 'vm', state: 'ready', generation: '1' } });
  const session = open(registry, generation);
  assert.throws(again, { metadata: { vm_id: 'vm', state: 'serving', generation: '1' } });
  assert.equal(endOf(session), undefined);
  session.vm.complete();
  assert.equal(registry.register('vm', TOKEN, new FakeImage(), true).generation, 2);
});

test('a failed Register leaves the older generation in force', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = ready(registry);
  const image = new FakeImage();
  assert.equal(
    reasonOf(() => registry.register('vm', Buffer.alloc(15), image)),
    'INVALID_ARGUMENT',
  );
  assert.equal(image.closes, 1, 'an image that is refused is closed');
  open(registry, generation);
});

test('once pages were served neither Register nor SetPaused(false) nor Release takes the VM back, except by force', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = ready(registry);
  const session = open(registry, generation);
  session.vm.served.add(1, 0);
  assert.equal(
    reasonOf(() => registry.register('vm', TOKEN, new FakeImage())),
    'PAGES_SERVED',
  );
  assert.equal(
    reasonOf(() => registry.setPaused('vm', generation, false)),
    'PAGES_SERVED',
  );
  assert.equal(
    reasonOf(() => registry.release('vm', generation, false)),
    'PAGES_SERVED',
  );
  assert.equal(endOf(session), undefined);
  registry.release('vm', generation, true);
  assert.equal(endOf(session), ErrorReason.UNKNOWN_VM);
  registry.register('vm', TOKEN, new FakeImage());
});

test('a VM that was opened but not read cannot be said to run again: only force lets go of it', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = ready(registry);
  const session = open(registry, generation);
  assert.equal(
    reasonOf(() => registry.release('vm', generation, false)),
    'WRONG_PHASE',
  );
  assert.equal(
    reasonOf(() => registry.setPaused('vm', generation, false)),
    'PAGES_SERVED',
  );
  assert.equal(endOf(session), undefined);
  registry.release('vm', generation, true);
  assert.equal(endOf(session), ErrorReason.UNKNOWN_VM);
});

test('pausing twice looks once; what ran again is looked at again', () => {
  const registry = new VmRegistry(() => 1);
  const { generation, image } = ready(registry);
  registry.setPaused('vm', generation, true);
  assert.equal(image.looks, 1);
  registry.setPaused('vm', generation, false);
  assert.equal(
    reasonOf(() => open(registry, generation)),
    'VM_NOT_PAUSED',
  );
  registry.setPaused('vm', generation, true);
  assert.equal(image.looks, 2);
  open(registry, generation);
});

test('a pause that fails leaves the VM registered and whoever waits for it waiting, to be paused again', async () => {
  const registry = new VmRegistry(() => 1);
  const image = new FakeImage();
  const { generation } = registry.register('vm', TOKEN, image);
  const session = openEarly(registry, generation);
  image.error = new PagewakeError(ErrorReason.MEMORY_UNREADABLE, 'gone');
  assert.equal(
    reasonOf(() => registry.setPaused('vm', generation, true)),
    'MEMORY_UNREADABLE',
  );
  assert.equal(registry.list()[0]?.state, 'registered');
  assert.equal(endOf(session), undefined);
  image.error = undefined;
  registry.setPaused('vm', generation, true);
  assert.equal(registry.list()[0]?.state, 'serving');
  await session.untilPaused;
});

test('a destination that came early is told of the pause in its very turn; after that the VM cannot run again here', async () => {
  const registry = new VmRegistry(() => 1);
  const { generation, vmId } = registry.register('vm', TOKEN, new FakeImage());
  assert.equal(vmId, 'vm');
  const session = openEarly(registry, generation);
  assert.equal(registry.list()[0]?.state, 'registered');
  assert.equal(registry.list()[0]?.session?.destinationId, 'd1');
  // Nothing that was said to run again, or never paused, is told.
  registry.setPaused('vm', generation, false);
  const order: string[] = [];
  const told = session.untilPaused.then(() => order.push('told'));
  setImmediate(() => order.push('next turn'));
  await new Promise<void>((resolve) => setImmediate(resolve));
  assert.deepEqual(order, ['next turn']);
  order.length = 0;
  setImmediate(() => order.push('next turn'));
  registry.setPaused('vm', generation, true);
  await told;
  assert.deepEqual(order, ['told']);
  assert.equal(registry.list()[0]?.state, 'serving');
  assert.equal(
    reasonOf(() => registry.setPaused('vm', generation, false)),
    'PAGES_SERVED',
  );
});

test('an early session is like any other: one destination, which replaces only itself', async () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = registry.register('vm', TOKEN, new FakeImage());
  const first = openEarly(registry, generation, 'd1');
  assert.equal(
    reasonOf(() => openEarly(registry, generation, 'd2')),
    'SECOND_DESTINATION',
  );
  assert.equal(
    reasonOf(() => open(registry, generation, 'd1')),
    'VM_NOT_PAUSED',
  );
  assert.equal(endOf(first), undefined);
  const second = openEarly(registry, generation, 'd1');
  assert.equal(endOf(first), ErrorReason.CANCELLED);
  await assert.rejects(first.untilPaused, { reason: ErrorReason.CANCELLED });
  // Its stream goes now, and takes nothing from the newer one.
  first.vm.leave(first);
  assert.equal(endOf(second), undefined);
  registry.setPaused('vm', generation, true);
  await second.untilPaused;
  assert.equal(
    reasonOf(() => openEarly(registry, generation, 'd2')),
    'SECOND_DESTINATION',
  );
});

test('who left before the pause blocks nobody; who leaves after it keeps what it was told', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = registry.register('vm', TOKEN, new FakeImage());
  const first = openEarly(registry, generation, 'd1');
  first.vm.leave(first);
  assert.equal(endOf(first), ErrorReason.CANCELLED);
  assert.equal(registry.list()[0]?.session, undefined);
  const second = openEarly(registry, generation, 'd2');
  registry.setPaused('vm', generation, true);
  second.vm.leave(second);
  assert.equal(endOf(second), undefined);
  assert.equal(
    reasonOf(() => openEarly(registry, generation, 'd1')),
    'SECOND_DESTINATION',
  );
});

test('whoever left before the pause leaves a VM that may run again', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = registry.register('vm', TOKEN, new FakeImage());
  const session = openEarly(registry, generation);
  session.vm.leave(session);
  registry.setPaused('vm', generation, true);
  assert.equal(registry.list()[0]?.state, 'ready');
  registry.setPaused('vm', generation, false);
});

test('Register anew and Release end a session that waits, without force', async () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = registry.register('vm', TOKEN, new FakeImage());
  const first = openEarly(registry, generation);
  const again = registry.register('vm', TOKEN, new FakeImage());
  await assert.rejects(first.untilPaused, { reason: ErrorReason.STALE_GENERATION });
  const second = openEarly(registry, again.generation);
  registry.release('vm', again.generation, false);
  await assert.rejects(second.untilPaused, { reason: ErrorReason.UNKNOWN_VM });
});

test('a VM that was not paused cannot be completed', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = registry.register('vm', TOKEN, new FakeImage());
  const { vm } = openEarly(registry, generation);
  assert.equal(
    reasonOf(() => vm.complete()),
    'VM_NOT_PAUSED',
  );
  assert.equal(vm.state, 'registered');
});

test('memory is closed with its generation, and exactly the released one', () => {
  const registry = new VmRegistry(() => 1);
  const { generation, image } = ready(registry);
  const other = new FakeImage();
  registry.register('other', TOKEN, other);
  registry.release('vm', generation, false);
  assert.equal(image.closes, 1);
  assert.equal(other.closes, 0);
});

test('exactly one destination: the same may come again and replaces itself, another may not', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = ready(registry);
  const first = open(registry, generation, 'd1');
  assert.equal(
    reasonOf(() => open(registry, generation, 'd2')),
    'SECOND_DESTINATION',
  );
  assert.equal(endOf(first), undefined);
  const second = open(registry, generation, 'd1');
  assert.equal(endOf(first), ErrorReason.CANCELLED);
  assert.notDeepEqual(first.id, second.id);
  assert.equal(endOf(second), undefined);
});

test('what is completed is never served again, and its memory is closed; completing twice is one', () => {
  const registry = new VmRegistry(() => 1);
  const { generation, image } = ready(registry);
  const { vm } = open(registry, generation);
  vm.complete();
  vm.complete();
  assert.equal(image.closes, 1);
  for (const destination of ['d1', 'd2']) {
    assert.equal(
      reasonOf(() => open(registry, generation, destination)),
      'ALREADY_COMPLETED',
    );
  }
  assert.equal(
    reasonOf(() => registry.setPaused('vm', generation, false)),
    'PAGES_SERVED',
  );
  registry.release('vm', generation, false);
});

test('a wrong token of any length is BAD_TOKEN', () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = ready(registry);
  for (const token of [new Uint8Array(0), Buffer.alloc(16, 8), Buffer.alloc(17, 7), Buffer.alloc(1 << 16)]) {
    assert.equal(
      reasonOf(() => open(registry, generation, 'd1', token)),
      'BAD_TOKEN',
    );
  }
});

test('the token is kept as it was, whatever becomes of the buffer it came in', () => {
  const registry = new VmRegistry(() => 1);
  const token = Buffer.alloc(16, 7);
  const image = new FakeImage();
  const { generation } = registry.register('vm', token, image);
  token.fill(0);
  registry.setPaused('vm', generation, true);
  open(registry, generation);
});

test('names that a log or a terminal could choke on are refused', () => {
  const registry = new VmRegistry();
  for (const vmId of ['', 'a\nb', 'a\u001b[31m', 'x'.repeat(129)]) {
    assert.equal(
      reasonOf(() => registry.register(vmId, TOKEN, new FakeImage())),
      'INVALID_ARGUMENT',
    );
  }
});

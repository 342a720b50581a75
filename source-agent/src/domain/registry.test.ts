import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import type { GuestImage, ZeroRunList } from './guest-image.ts';
import { VmRegistry } from './registry.ts';
import type { Session } from './session.ts';
import { transition, type VmState } from './vm-state.ts';

const BUDGET = { timeout: 5000 };
const TOKEN = Buffer.alloc(16, 7);
const NO_ZEROS: readonly ZeroRunList[] = [{ firstPages: new Uint32Array(0), pageCounts: new Uint32Array(0) }];

/** The registry's laws are about order and ownership, so this memory only knows whether it is open and when its scan ends. */
class FakeImage implements GuestImage {
  readonly regions = [{ pageSizeBytes: 4096, pageCount: 4 }];
  closes = 0;
  scans: { resolve: (lists: readonly ZeroRunList[]) => void; reject: (error: Error) => void }[] = [];

  readRun(): void {}
  scanZero(): Promise<readonly ZeroRunList[]> {
    return new Promise((resolve, reject) => this.scans.push({ resolve, reject }));
  }
  close(): void {
    this.closes++;
  }
  scanned(): void {
    for (const { resolve } of this.scans.splice(0)) resolve(NO_ZEROS);
  }
}

const open = (registry: VmRegistry, generation: number, destinationId = 'd1', token: Uint8Array = TOKEN): Session =>
  registry.open({ vmId: 'vm', generation, token, destinationId, regions: [] });

/** A call, so that the compiler does not take it for what it was a moment ago. */
const endOf = (session: Session): ErrorReason | undefined => session.ended?.reason;

async function ready(registry: VmRegistry, image = new FakeImage()): Promise<{ generation: number; image: FakeImage }> {
  const { generation } = registry.register('vm', TOKEN, () => image);
  const paused = registry.setPaused('vm', generation, true);
  image.scanned();
  await paused;
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

async function reasonOfAsync(what: Promise<unknown>): Promise<string> {
  const error = await what.then(
    () => undefined,
    (e: unknown) => e,
  );
  return error instanceof PagewakeError ? error.reasonName : String(error);
}

test('a VM moves only along the table, and completed is final', () => {
  const states: readonly VmState[] = ['registered', 'scanning', 'ready', 'serving', 'completed'];
  const allowed = new Set([
    'registered>scanning',
    'scanning>ready',
    'scanning>registered',
    'ready>serving',
    'ready>registered',
    'serving>completed',
  ]);
  for (const from of states) {
    for (const to of states) {
      if (allowed.has(`${from}>${to}`)) assert.equal(transition(from, to), to);
      else assert.throws(() => transition(from, to), /cannot go from/);
    }
  }
});

test('a generation rises by one with every Register, also across a Release, and is never given twice', () => {
  const registry = new VmRegistry(() => 100);
  const next = (vmId: string): number => registry.register(vmId, TOKEN, () => new FakeImage()).generation;
  assert.deepEqual([next('a'), next('a'), next('b')], [100, 101, 100]);
  registry.release('a', 0, false);
  assert.equal(next('a'), 102);
});

test('by default generations begin where an agent that was restarted has not been', () => {
  const generation = new VmRegistry().register('a', TOKEN, () => new FakeImage()).generation;
  assert(generation > 1_700_000_000 && generation <= 0xffff_ffff);
});

test(
  'Register fences the older generation: its session ends, its memory closes, its number is stale',
  BUDGET,
  async () => {
    const registry = new VmRegistry(() => 1);
    const first = await ready(registry);
    const session = open(registry, first.generation);
    let told: PagewakeError | undefined;
    session.attach((error) => (told = error));
    const second = await ready(registry);
    assert.equal(second.generation, first.generation + 1);
    assert.equal(told?.reason, ErrorReason.STALE_GENERATION);
    assert.equal(registry.session(session.id).ended?.reason, ErrorReason.STALE_GENERATION);
    assert.equal(first.image.closes > 0, true);
    assert.equal(second.image.closes, 0);
    assert.equal(
      reasonOf(() => open(registry, first.generation)),
      'STALE_GENERATION',
    );
    assert.equal(await reasonOfAsync(registry.setPaused('vm', first.generation, true)), 'STALE_GENERATION');
  },
);

test('a failed Register leaves the older generation in force', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = await ready(registry);
  assert.throws(() => registry.register('vm', TOKEN, () => assert.fail('no such file')), /no such file/);
  assert.equal(
    reasonOf(() => registry.register('vm', Buffer.alloc(15), () => new FakeImage())),
    'INVALID_ARGUMENT',
  );
  open(registry, generation);
});

test(
  'once pages were served neither Register nor SetPaused(false) nor Release takes the VM back, except by force',
  BUDGET,
  async () => {
    const registry = new VmRegistry(() => 1);
    const { generation } = await ready(registry);
    const session = open(registry, generation);
    session.vm.pagesServed = 1;
    assert.equal(
      reasonOf(() => registry.register('vm', TOKEN, () => new FakeImage())),
      'PAGES_SERVED',
    );
    assert.equal(await reasonOfAsync(registry.setPaused('vm', generation, false)), 'PAGES_SERVED');
    assert.equal(
      reasonOf(() => registry.release('vm', generation, false)),
      'PAGES_SERVED',
    );
    assert.equal(endOf(session), undefined);
    registry.release('vm', generation, true);
    assert.equal(endOf(session), ErrorReason.UNKNOWN_VM);
    registry.register('vm', TOKEN, () => new FakeImage());
  },
);

test('a VM that was opened but not read cannot be said to run again: only force lets go of it', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = await ready(registry);
  const session = open(registry, generation);
  assert.equal(
    reasonOf(() => registry.release('vm', generation, false)),
    'WRONG_PHASE',
  );
  assert.equal(await reasonOfAsync(registry.setPaused('vm', generation, false)), 'PAGES_SERVED');
  assert.equal(endOf(session), undefined);
  registry.release('vm', generation, true);
  assert.equal(endOf(session), ErrorReason.UNKNOWN_VM);
});

test('pausing twice scans once; a scan that the VM outran decides nothing', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const image = new FakeImage();
  const { generation } = registry.register('vm', TOKEN, () => image);
  const first = registry.setPaused('vm', generation, true);
  const again = registry.setPaused('vm', generation, true);
  assert.equal(image.scans.length, 1);
  assert.equal(
    reasonOf(() => open(registry, generation)),
    'VM_NOT_PAUSED',
  );
  await registry.setPaused('vm', generation, false);
  const [outrun] = image.scans.splice(0);
  const second = registry.setPaused('vm', generation, true);
  outrun?.resolve(NO_ZEROS);
  assert.equal(await reasonOfAsync(first), 'VM_NOT_PAUSED');
  assert.equal(await reasonOfAsync(again), 'VM_NOT_PAUSED');
  assert.equal(
    reasonOf(() => open(registry, generation)),
    'VM_NOT_PAUSED',
  );
  image.scanned();
  await second;
  open(registry, generation);
});

test('a scan that fails leaves the VM registered, to be paused again', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const image = new FakeImage();
  const { generation } = registry.register('vm', TOKEN, () => image);
  const failing = registry.setPaused('vm', generation, true);
  image.scans.pop()?.reject(new PagewakeError(ErrorReason.MEMORY_UNREADABLE, 'gone'));
  assert.equal(await reasonOfAsync(failing), 'MEMORY_UNREADABLE');
  assert.equal(registry.list()[0]?.state, 'registered');
  const again = registry.setPaused('vm', generation, true);
  image.scanned();
  await again;
  assert.equal(registry.list()[0]?.state, 'ready');
});

test('memory is closed only after the scan that reads it, and exactly the released one', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const image = new FakeImage();
  const { generation } = registry.register('vm', TOKEN, () => image);
  const scan = registry.setPaused('vm', generation, true);
  registry.release('vm', generation, false);
  assert.equal(image.closes, 0);
  image.scanned();
  assert.equal(await reasonOfAsync(scan), 'VM_NOT_PAUSED');
  assert.equal(image.closes, 1);
});

test('exactly one destination: the same may come again and replaces itself, another may not', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = await ready(registry);
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

test('what is completed is never served again, and its memory is closed; completing twice is one', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const { generation, image } = await ready(registry);
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
  assert.equal(await reasonOfAsync(registry.setPaused('vm', generation, false)), 'PAGES_SERVED');
  registry.release('vm', generation, false);
});

test('a wrong token of any length is BAD_TOKEN', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const { generation } = await ready(registry);
  for (const token of [new Uint8Array(0), Buffer.alloc(16, 8), Buffer.alloc(17, 7), Buffer.alloc(1 << 16)]) {
    assert.equal(
      reasonOf(() => open(registry, generation, 'd1', token)),
      'BAD_TOKEN',
    );
  }
});

test('the token is kept as it was, whatever becomes of the buffer it came in', BUDGET, async () => {
  const registry = new VmRegistry(() => 1);
  const token = Buffer.alloc(16, 7);
  const image = new FakeImage();
  const { generation } = registry.register('vm', token, () => image);
  token.fill(0);
  const scan = registry.setPaused('vm', generation, true);
  image.scanned();
  await scan;
  open(registry, generation);
});

test('names that a log or a terminal could choke on are refused', () => {
  const registry = new VmRegistry();
  for (const vmId of ['', 'a\nb', 'a\u001b[31m', 'x'.repeat(129)]) {
    assert.equal(
      reasonOf(() => registry.register(vmId, TOKEN, () => new FakeImage())),
      'INVALID_ARGUMENT',
    );
  }
});

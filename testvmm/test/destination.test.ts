import assert from 'node:assert/strict';
import test from 'node:test';

import { handOver } from './hand-over.ts';

test('the handshake names regions, descriptors, modes and vCPU threads', { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, [], ['--register', 'missing,minor']);
  if (made === null) return;
  assert.ok(made.handshake.endsWith('\n'));
  const text = JSON.parse(made.handshake) as Record<string, unknown>;
  assert.equal(text['protocol'], 'pagewake/1');
  assert.equal(text['vm'], 'blue');
  assert.deepEqual(text['fds'], ['uffd', 'memfd']);
  assert.deepEqual(text['registered'], ['missing', 'minor']);
  assert.equal((text['vcpus'] as number[]).length, 2);
  const regions = text['regions'] as Record<string, number>[];
  assert.deepEqual(
    regions.map((r) => [r['size'], r['offset'], r['file_offset'], r['page_size']]),
    [
      [8 << 20, 0, 0, 4096],
      [8 << 20, 8 << 20, 8 << 20, 4096],
    ],
  );
  assert.match((await made.vmm.ok('stats')).state ?? '', /paused/, 'nothing runs before `ready`');
});

test('anonymous memory comes with the userfaultfd alone', { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, ['--memory', 'anon'], []);
  if (made === null) return;
  const text = JSON.parse(made.handshake) as Record<string, unknown>;
  assert.deepEqual(text['fds'], ['uffd']);
  assert.deepEqual(text['registered'], ['missing']);
});

test('guest_memfd comes without a userfaultfd, and the guest waits for `ready`', { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, ['--memory', 'guest_memfd'], []);
  if (made === null) return;
  const text = JSON.parse(made.handshake) as Record<string, unknown>;
  assert.deepEqual(text['fds'], ['guest_memfd']);
  assert.deepEqual(text['registered'], []);
  assert.equal((await made.vmm.ok('stats')).state, 'paused');
});

test("Firecracker's handshake is a bare array, and its guest runs at once", { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, [], ['--handshake', 'firecracker']);
  if (made === null) return;
  const regions = JSON.parse(made.handshake) as Record<string, number>[];
  assert.deepEqual(
    regions.map(({ base_host_virt_addr: address, ...rest }) => [typeof address, rest]),
    [0, 1].map((i) => ['number', { size: 8 << 20, offset: i * (8 << 20), page_size: 4096, page_size_kib: 4096 }]),
  );
  assert.equal((await made.loading).ok, true);
});

test(
  'a form of the Firecracker handshake that no agent takes leaves the guest where it is',
  { timeout: 20_000 },
  async (t) => {
    const made = await handOver(t, ['--no-kvm'], ['--handshake', 'firecracker', '--form', 'two-descriptors']);
    if (made === null) return;
    assert.equal((await made.vmm.ok('stats')).state, 'paused');
    made.agent.close();
    assert.equal((await made.loading).ok, false);
    assert.equal((await made.vmm.exit).code, 3);
  },
);

for (const kvm of [[], ['--no-kvm']]) {
  const where = kvm.length === 0 ? 'on KVM' : 'on plain threads';
  test(`a guest whose memory was not brought finds zeros and says so, ${where}`, { timeout: 20_000 }, async (t) => {
    const made = await handOver(t, kvm, []);
    if (made === null) return;
    made.agent.send({ type: 'ready' });
    assert.equal((await made.loading).ok, true);
    made.agent.send({ type: 'done' }); // a lie: our end closes the last userfaultfd, and the kernel lets zeros through
    assert.equal((await made.vmm.exit).code, 1);
    const wrong = made.vmm.events.find((e) => e.event === 'wrong_page');
    assert.equal(wrong?.found, '0x0000000000000000');
    assert.equal(wrong?.looks_like, 'zeros');
  });
}

test('an agent that gives up ends the VMM with its reason', { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, ['--no-kvm'], []);
  if (made === null) return;
  made.agent.send({ type: 'ready' });
  await made.loading;
  made.agent.send({ type: 'failed', reason: 'CHECKSUM_MISMATCH', message: 'page 7 is "not" it' });
  const { code, stderr } = await made.vmm.exit;
  assert.equal(code, 3);
  assert.equal(made.vmm.events.find((e) => e.event === 'failed')?.reason, 'CHECKSUM_MISMATCH');
  assert.match(stderr, /page 7 is "not" it/);
});

test('an agent that closes before `ready` fails the load, and the guest never runs', { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, ['--no-kvm'], []);
  if (made === null) return;
  made.agent.close();
  assert.match((await made.loading).error ?? '', /closed the channel before `ready`/);
  assert.equal((await made.vmm.exit).code, 3);
});

test('an agent that never says `ready` fails the load by its budget', { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, ['--no-kvm'], ['--ready-timeout', '100']);
  if (made === null) return;
  assert.match((await made.loading).error ?? '', /did not say `ready` in 100 ms/);
  assert.equal((await made.vmm.exit).code, 3);
});

test(
  'an agent that leaves before `done` freezes the guest; nothing is lost and the VMM still answers',
  { timeout: 20_000 },
  async (t) => {
    const made = await handOver(t, [], []);
    if (made === null) return;
    made.agent.send({ type: 'ready' });
    await made.loading;
    made.agent.close();
    await made.vmm.until('agent_closed');
    const stats = await made.vmm.ok('stats');
    assert.equal(stats.state, 'running');
    assert.equal(stats.wrong, 0);
    await made.vmm.ok('quit');
    assert.equal((await made.vmm.exit).code, 0);
  },
);

test('a KVM guest is not continued on plain threads', { timeout: 20_000 }, async (t) => {
  const made = await handOver(t, [], ['--no-kvm']);
  if (made === null) return;
  assert.match(made.handshake, /state is of a KVM guest/);
});

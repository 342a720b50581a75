import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'node:test';

import { listenAsAgent, runTestvmm, temporaryFolder, Vmm } from './vmm.ts';

const ARGS = ['--ram', '16M', '--workload', '8M', '--io-pages', '64', '--no-kvm', '--vcpus', '2'];

test(
  'a damaged state blob is refused with what is wrong, and the destination can load another',
  { timeout: 30_000 },
  async (t) => {
    const folder = await temporaryFolder(t);
    const image = join(folder, 'image');
    const snapshot = await runTestvmm(['snapshot', '--out', image, ...ARGS, '--quiet-heartbeats']);
    assert.equal(snapshot.code, 0, snapshot.stderr);
    const good = await readFile(`${image}.state`);
    const flipped = (at: number): Buffer => {
      const copy = Buffer.from(good);
      copy.writeUInt8(copy.readUInt8(at) ^ 1, at);
      return copy;
    };
    const cases: readonly (readonly [string, Buffer, RegExp])[] = [
      ['magic', flipped(0), /not a state blob/],
      ['version', flipped(8), /version/],
      ['length', flipped(16), /cut or grew/],
      ['checksum', flipped(24), /checksum mismatch/],
      ['first byte of the body', flipped(32), /checksum mismatch/],
      ['middle', flipped(good.length >> 1), /checksum mismatch/],
      ['last byte', flipped(good.length - 1), /checksum mismatch/],
      ['cut', good.subarray(0, good.length - 1), /cut or grew/],
      ['empty', Buffer.alloc(0), /too short/],
    ];
    const vmm = await Vmm.start(t, folder, 'destination', ['--no-kvm']);
    if (vmm === null) return;
    const path = join(folder, 'bad.state');
    const agent = await listenAsAgent(t, folder);
    for (const [what, bytes, error] of cases) {
      await writeFile(path, bytes);
      const reply = await vmm.command(`load ${path} ${agent.path}`);
      assert.equal(reply.ok, false, what);
      assert.match(reply.error ?? '', error, what);
    }
    assert.match((await vmm.command(`load ${join(folder, 'none')} ${agent.path}`)).error ?? '', /No such file/);
    assert.match(
      (await vmm.command(`load ${image}.state ${join(folder, 'none.sock')}`)).error ?? '',
      /connecting to the agent's socket/,
    );
    assert.match((await vmm.command('stats')).error ?? '', /no VM yet/);

    const loading = vmm.command(`load ${image}.state ${agent.path}`);
    await Promise.race([agent.handshake, loading]);
    const failed = vmm.events.find((e) => e.event === 'failed');
    if (failed !== undefined) return t.skip(failed.message ?? '');
    agent.send({ type: 'ready' });
    assert.equal((await loading).ok, true);
  },
);

test('a snapshot is a sparse image of the right size and names its pages', { timeout: 30_000 }, async (t) => {
  const image = join(await temporaryFolder(t), 'image');
  const { code, stdout, stderr } = await runTestvmm(['snapshot', '--out', image, ...ARGS, '--quiet-heartbeats']);
  assert.equal(code, 0, stderr);
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { event: string; pages?: number; size?: number });
  const taken = events.at(-1);
  assert.equal(taken?.event, 'snapshot');
  assert.equal(taken.size, 16 << 20);
  const bytes = await readFile(image);
  assert.equal(bytes.length, 16 << 20);
  const filled = (8 << 20) / 4096 + 64;
  assert.ok(
    (taken.pages ?? 0) >= filled && (taken.pages ?? 0) < 4096,
    'the workload is in the file, what nobody touched is a hole',
  );
  for (let page = 0; page < filled; page++)
    assert.ok(
      bytes.subarray(page * 4096, (page + 1) * 4096).some((byte) => byte !== 0),
      `page ${page} has content`,
    );
  assert.ok(bytes.subarray(-4096).every((byte) => byte === 0));
});

/** What would let a guest read zeros ends the process, with one line that says what to do. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Fixture, Preloaded, type Environment } from './process.ts';
import { HANG_MS, memoryFolder, SANITIZED } from './support.ts';

const options = { timeout: 3 * HANG_MS };
const SOCKET = '/nonexistent/agent.sock';
const NOBODY = 65_534;
const TMPFS_MAGIC = 0x01021994;

const REFUSED: readonly [what: string, commands: readonly string[], says: RegExp][] = [
  ['a private mapping', ['map private RAM 4'], /RAM is mapped privately.*share=on/],
  ['a read-only mapping', ['map readonly RAM 4'], /RAM is mapped read-only/],
  ['a mapping that is filled at once', ['map populate RAM 4'], /RAM is mapped and filled at once.*prealloc=off/],
  ['a second mapping of a file', ['map shared RAM 4', 'map shared RAM 4'], /RAM is mapped a second time/],
  ['preallocation by write', ['map shared RAM 4', 'populate-write 0 0 1'], /QEMU fills RAM .*prealloc=off/],
  ['preallocation by read', ['map shared RAM 4', 'populate-read 0 3 1'], /QEMU fills RAM .*prealloc=off/],
  ['locking all memory', ['mlockall 3'], /locks all of its memory.*mem-lock/],
  ['something else over guest memory', ['map shared RAM 4', 'over 0'], /mapped over guest RAM/],
];

for (const [what, commands, says] of REFUSED)
  test(`refused: ${what}`, options, async (t) => {
    if (SANITIZED && what === 'locking all memory') return t.skip('AddressSanitizer answers mlockall itself');
    const ram = join(memoryFolder(t), 'ram');
    const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: ram });
    for (const command of commands) fixture.say(command.replace('RAM', ram));
    const { code, stderr } = await fixture.ended();
    assert.equal(code, 1);
    assert.match(stderr.replaceAll(ram, 'RAM'), says);
    assert.match(stderr, /^pagewake-shim: [^\n]+\n$/);
  });

const DEVICES: readonly [args: readonly string[], says: RegExp | undefined][] = [
  [['-netdev', 'vhost-user,id=n0,chardev=c0'], /vhost-user cannot be used.*another process/],
  [['-netdev', '{"type":"vhost-user","id":"n0"}'], /vhost-user cannot be used/],
  [['-device', '{"driver":"vhost-user-fs-pci","id":"fs0"}'], /vhost-user cannot be used/],
  [['--device', 'id=d0,driver=vfio-pci,host=01:00.0'], /vfio-pci cannot be used.*pins/],
  [['-m', '64', '-netdev', 'type=vhost-vdpa,id=n0'], /vhost-vdpa cannot be used.*pins/],
  [['-name', 'vhost-user'], undefined],
  [['-device', 'virtio-blk-pci,drive=/srv/vhost-user/disk'], undefined],
  [['-netdev', 'tap,id=n0,vhost=on'], undefined],
];

for (const [args, says] of DEVICES)
  test(`${says === undefined ? 'served' : 'refused'}: ${args.join(' ')}`, options, async (t) => {
    const ram = join(memoryFolder(t), 'ram');
    const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: ram }, { args });
    if (says === undefined) {
      await fixture.map(ram, 4);
      assert.equal(fixture.stderr, '');
      return;
    }
    fixture.say(`map shared ${ram} 4`);
    const { code, stderr } = await fixture.ended();
    assert.equal(code, 1);
    assert.match(stderr, says);
  });

test('refused: more files below a folder than were announced', options, async (t) => {
  const folder = memoryFolder(t);
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: folder });
  await fixture.map(join(folder, 'node0'), 4);
  fixture.say(`map shared ${join(folder, 'node1')} 4`);
  const { code, stderr } = await fixture.ended();
  assert.equal(code, 1);
  assert.match(stderr, /node1 is one RAM file more than the 1 .*PAGEWAKE_RAM_COUNT/);
});

test('locking that does not fill is let through', options, async (t) => {
  const ram = join(memoryFolder(t), 'ram');
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: ram });
  assert.match(await fixture.ask('mlockall 4', /^mlockall/), /^mlockall (ok|EINVAL)/); // MCL_ONFAULT alone says nothing to lock
  assert.match(await fixture.ask('mlockall 6', /^mlockall/), /^mlockall (ok|ENOMEM|EPERM)/);
});

test('refused: a file on a disk', options, async (t) => {
  const folder = mkdtempSync(fileURLToPath(new URL('../build/disk-', import.meta.url)));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  if (statfsSync(folder).type === TMPFS_MAGIC) return t.skip('this checkout lies on tmpfs');
  const ram = join(folder, 'ram');
  const fixture = await Fixture.start(t, { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: ram });
  fixture.say(`map shared ${ram} 4`);
  const { code, stderr } = await fixture.ended();
  assert.equal(code, 1);
  assert.match(stderr, /ram cannot be watched.*tmpfs or hugetlbfs/);
});

test('refused: a user who may have no userfaultfd, naming the three ways to one', options, async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root, to become somebody who may not');
  if (readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').trim() === '1')
    return t.skip('vm.unprivileged_userfaultfd is 1 here: everybody may');
  const fixture = await Fixture.start(
    t,
    { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: '/dev/shm/pagewake-shim-nobody' },
    { uid: NOBODY },
  );
  t.after(() => rmSync('/dev/shm/pagewake-shim-nobody', { force: true }));
  fixture.say('map shared /dev/shm/pagewake-shim-nobody 4');
  const { code, stderr } = await fixture.ended();
  assert.equal(code, 1);
  assert.match(stderr, /no userfaultfd.*\/dev\/userfaultfd.*CAP_SYS_PTRACE.*vm\.unprivileged_userfaultfd=1/);
});

const HALF_SET: readonly [what: string, environment: Environment, says: RegExp][] = [
  ['RAM without a socket', { PAGEWAKE_RAM: '/dev/shm/x' }, /PAGEWAKE_RAM is set, PAGEWAKE_SOCKET is not/],
  ['a socket without RAM', { PAGEWAKE_SOCKET: SOCKET }, /PAGEWAKE_SOCKET is set, PAGEWAKE_RAM is not/],
  ['an empty socket', { PAGEWAKE_SOCKET: '', PAGEWAKE_RAM: '/x' }, /PAGEWAKE_SOCKET is not/],
  ['a relative socket', { PAGEWAKE_SOCKET: 'a.sock', PAGEWAKE_RAM: '/x' }, /"a.sock" is not an absolute path/],
  ['a socket path too long', { PAGEWAKE_SOCKET: `/${'x'.repeat(107)}`, PAGEWAKE_RAM: '/x' }, /longer than .*107 bytes/],
  ['relative RAM', { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: '/x:ram' }, /"ram" is not an absolute path/],
  ['RAM named twice', { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: '/x:/y:/x' }, /names \/x twice/],
  [
    'too many files',
    { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: Array.from({ length: 16 }, (_, i) => `/${i}`).join(':') },
    /more than 15 files/,
  ],
  ...['0', '16', 'two', '-1', '1x'].map((count): [string, Environment, RegExp] => [
    `a count of ${count}`,
    { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: '/x', PAGEWAKE_RAM_COUNT: count },
    new RegExp(`"${count}" is not a number from 1 to 15`),
  ]),
];

for (const [what, environment, says] of HALF_SET)
  test(`refused at load: ${what}`, options, async (t) => {
    const { code, stderr } = await new Preloaded(t, ['/bin/true'], environment).ended();
    assert.equal(code, 1);
    assert.match(stderr, says);
    assert.match(stderr, /^pagewake-shim: [^\n]+\n$/);
  });

test('without its environment the library does nothing', options, async (t) => {
  const ram = join(memoryFolder(t), 'ram');
  const fixture = await Fixture.start(t, {});
  for (const how of ['shared', 'private', 'shared', 'populate']) await fixture.map(ram, 4, { how });
  assert.equal(await fixture.ask('touch 0 1 0', /^touch/), 'touch 0 1 0');
  assert.equal(await fixture.ask('populate-write 0 0 4', /^populate/), 'populate-write ok');
  assert.equal(await fixture.ask('munmap 0 4', /^munmap/), 'munmap ok');
  assert.equal(fixture.userfaultfds, 0);
  assert.equal(fixture.threads().includes('pagewake-shim'), false);
});

test(
  'a program that maps no guest memory runs as ever, also as a child of one that was started so',
  options,
  async (t) => {
    const environment = { PAGEWAKE_SOCKET: SOCKET, PAGEWAKE_RAM: '/dev/shm/x' };
    const { code, stderr } = await new Preloaded(
      t,
      ['/bin/sh', '-c', '/bin/cat /proc/self/comm; exit 7'],
      environment,
    ).ended();
    assert.equal(code, 7);
    assert.equal(SANITIZED ? '' : stderr, '');
  },
);

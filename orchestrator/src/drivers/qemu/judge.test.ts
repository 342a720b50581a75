/** Which pairs of QEMUs are refused, and in what words. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UserError } from '@pagewake/agent-kit';
import type { QemuView, RamBackend } from './inspect.ts';
import { judge } from './judge.ts';
import { memoryOf, regionNamesOf } from './memory.ts';
import { readRamBlocks } from './ram-blocks.ts';

const RAM: RamBackend = {
  id: 'ram',
  type: 'memory-backend-file',
  share: true,
  prealloc: false,
  sizeBytes: 1 << 30,
  pageSizeBytes: 4096,
  path: '/dev/shm/a/ram',
  fileOffset: 0,
};
const VIEW: QemuView = {
  version: { major: 10, minor: 0, micro: 2 },
  name: 'web1',
  status: 'running',
  migration: undefined,
  capabilities: new Set(['events', 'x-ignore-shared', 'pause-before-switchover']),
  machine: 'pc-i440fx-10.0-machine',
  kvm: true,
  vcpus: 4,
  backends: [RAM],
  parts: ['memory-backend-file', 'virtio-blk-pci', 'tap'],
};
const OTHER: QemuView = { ...VIEW, status: 'inmigrate', backends: [{ ...RAM, path: '/dev/shm/b/ram' }] };

const judged = (source: Partial<QemuView>, destination: Partial<QemuView>): void =>
  judge(
    { who: 'the source QEMU', view: { ...VIEW, ...source }, local: true },
    { who: 'the destination QEMU', view: { ...OTHER, ...destination }, local: true },
  );

test('two QEMUs that are alike are let pass, also where the destination listens since an earlier attempt', () => {
  judged({}, {});
  judged({ migration: 'failed' }, { migration: 'setup' });
});

const withRam = (change: Partial<RamBackend>): Partial<QemuView> => ({
  backends: [{ ...RAM, path: '/dev/shm/b/ram', ...change }],
});

const REFUSED: readonly (readonly [string, Partial<QemuView>, Partial<QemuView>, RegExp])[] = [
  ['an old QEMU', { version: { major: 7, minor: 2, micro: 0 } }, {}, /source QEMU is version 7\.2\.0; 8\.0 or later/],
  [
    'no x-ignore-shared',
    {},
    { capabilities: new Set(['events']) },
    /destination QEMU has no migration capability x-ign/,
  ],
  ['a paused source', { status: 'paused' }, {}, /is not running its guest but paused/],
  [
    'a source whose guest has moved',
    { status: 'postmigrate', migration: 'completed' },
    {},
    /but postmigrate: its guest has been migrated away and runs elsewhere, .* must not run here again; .*\(quit\)$/,
  ],
  [
    'QEMUs the wrong way round',
    { status: 'inmigrate' },
    { status: 'running' },
    /but inmigrate: it waits for a guest itself.*--source-qmp and --dest-qmp the wrong way round\?/,
  ],
  ['a source that has never run', { status: 'prelaunch' }, {}, /but prelaunch: it was started with -S/],
  ['a source that migrates', { migration: 'active' }, {}, /is migrating already \(active\)/],
  ['a destination that runs', {}, { status: 'running' }, /does not wait for a guest but is running; .*-incoming defer/],
  ['a destination that failed before', {}, { migration: 'failed' }, /has failed a migration; start it anew/],
  ['a destination that is taken', {}, { migration: 'active' }, /is taking in another migration \(active\)/],
  [
    'a memfd',
    { backends: [{ ...RAM, type: 'memory-backend-memfd', path: undefined }] },
    {},
    /memory-backend-memfd: QEMU’s x-ignore-shared does not work with it; use -object/,
  ],
  [
    'anonymous RAM',
    { backends: [{ ...RAM, id: 'pc.ram', type: 'memory-backend-ram', path: undefined }] },
    {},
    /"pc\.ram" in a memory-backend-ram: it has no file to be shared; use/,
  ],
  ['private RAM', withRam({ share: false }), {}, /source QEMU has its RAM "ram" with share=off/],
  ['prealloc on the destination', {}, withRam({ prealloc: true }), /with prealloc=on: .*prealloc=off/],
  ['another size', {}, withRam({ sizeBytes: 2 << 20 }), /RAM "ram" of bytes 1073741824 on the source, 2097152 on the/],
  ['other pages', {}, withRam({ pageSizeBytes: 2 << 20 }), /in pages of bytes 4096 on the source, 2097152/],
  ['another id', {}, withRam({ id: 'mem' }), /RAM backends ram on the source, mem on the destination/],
  ['one file for both', {}, { backends: [RAM] }, /both QEMUs have their RAM "ram" in \/dev\/shm\/a\/ram/],
  ['another machine', {}, { machine: 'pc-q35-10.0-machine' }, /machine pc-i440fx.* on the source, pc-q35/],
  ['another accelerator', {}, { kvm: false }, /accelerator kvm on the source, tcg on the destination/],
  ['other vCPUs', {}, { vcpus: 2 }, /vCPUs 4 on the source, 2 on the destination/],
  ['vhost-user', {}, { parts: ['virtio-net-pci', 'vhost-user'] }, /destination QEMU has a vhost-user: another process/],
  ['a device that is passed through', { parts: ['vfio-pci'] }, {}, /source QEMU has a vfio-pci: a device pins/],
  ['ivshmem', { parts: ['ivshmem-plain'] }, {}, /memory of its own/],
];
for (const [what, source, destination, says] of REFUSED) {
  test(`${what} is refused with what it is and what to do`, () => {
    assert.throws(
      () => judged(source, destination),
      (error) => error instanceof UserError && says.test(error.message),
    );
  });
}

test('the same path on two hosts is two files', () => {
  const remote = { who: 'the destination QEMU', view: { ...OTHER, backends: [RAM] }, local: false };
  judge({ who: 'the source QEMU', view: VIEW, local: true }, remote);
});

test('regions are the backends in their order, each in its own file; names are the other side’s paths', () => {
  const backends = [RAM, { ...RAM, id: 'ram2', path: '/dev/hugepages/x', pageSizeBytes: 2 << 20, fileOffset: 4096 }];
  assert.deepEqual(memoryOf(backends).kind, {
    case: 'file',
    value: {
      path: '/dev/shm/a/ram',
      regions: [
        { geometry: { pageSizeBytes: 4096, pageCount: 262144 }, fileOffset: 0n, path: '/dev/shm/a/ram' },
        { geometry: { pageSizeBytes: 2 << 20, pageCount: 512 }, fileOffset: 4096n, path: '/dev/hugepages/x' },
      ],
    },
  });
  assert.deepEqual(regionNamesOf(backends), ['/dev/shm/a/ram', '/dev/hugepages/x']);
});

test('a backend is guest RAM where QEMU has a block of its name, in the pages that it says', () => {
  const text = [
    '              Block Name    PSize              Offset               Used              Total                HVA  RO',
    '                   numa0    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000 0x00007ff9a7fff000  rw',
    '            /objects/big    2 MiB  0x0000000004000000 0x0000000004000000 0x0000000004000000 0x00007ff9a3ffe000  rw',
    '                            4 KiB  0x0000000008000000 0x0000000001000000 0x0000000001000000 0x00007ff9f07fa000  rw',
    '                 pc.bios    4 KiB  0x0000000009000000 0x0000000000040000 0x0000000000040000 0x00007ff9f0600000  ro',
  ].join('\r\n');
  assert.deepEqual(
    [...readRamBlocks(text)],
    [
      ['numa0', { pageSizeBytes: 4096 }],
      ['big', { pageSizeBytes: 2 << 20 }],
      ['pc.bios', { pageSizeBytes: 4096 }],
    ],
  );
});

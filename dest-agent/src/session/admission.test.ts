import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { PagewakeError } from '@pagewake/agent-kit';
import { parseHandshake } from '@pagewake/core/messages';
import { duplicateDescriptor, MemoryFile } from '@pagewake/native';
import { regionOf, startVmm } from '../../test/agent.ts';
import { seen, SIGBUS } from '../../test/pages.ts';
import { newContinuity } from '../../test/continuity.ts';
import { takeOver } from '../../test/rig.ts';
import { lacking, type Toucher } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';
import { AdmittedVm } from './admission.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };
const PAGES = 64;

const region = { base_host_virt_addr: 2 ** 40, size: PAGES * 4096, offset: 0, page_size: 4096 };
const offer = (change: Record<string, unknown> = {}): string =>
  JSON.stringify({
    protocol: 'pagewake/1',
    vm: 'demo',
    regions: [region],
    fds: ['uffd'],
    registered: ['missing'],
    vcpus: [],
    ...change,
  });

/** As the session does it with what came over the socket: copies of the descriptors, which it owns. */
function admit(t: TestContext, text: string, fds: readonly number[], wantedMode?: 'post-copy' | 'eager'): AdmittedVm {
  const received = { offer: parseHandshake(text, fds.length), descriptors: fds.map(duplicateDescriptor), pid: 0 };
  return new AdmittedVm(received, { vmId: 'demo', wantedMode, regionNames: [], continuity: newContinuity(t) });
}

type Peer = (t: TestContext, vmm: Toucher) => Promise<{ readonly text: string; readonly fds: readonly number[] }>;

async function vmmFds(t: TestContext, vmm: Toucher): Promise<readonly [uffd: number, memfd: number]> {
  const [uffd, memfd] = await takeOver(t, vmm, ['uffd', 'memfd']);
  assert(uffd !== undefined && memfd !== undefined);
  t.after(() => {
    closeSync(uffd);
    closeSync(memfd);
  });
  return [uffd, memfd];
}

const BAD_MEMORY: readonly (readonly [law: string, peer: Peer, reason: string, message: RegExp])[] = [
  [
    'a uffd that is no userfaultfd',
    async (t, vmm) => {
      const [, memfd] = await vmmFds(t, vmm);
      return { text: offer({ regions: [regionOf(vmm)] }), fds: [memfd] };
    },
    'BAD_HANDSHAKE',
    /named uffd is not a userfaultfd/,
  ],
  [
    'a memfd that is too small',
    async (t, vmm) => {
      const [uffd] = await vmmFds(t, vmm);
      const small = MemoryFile.createMemfd('small', (PAGES - 1) * 4096);
      t.after(() => small.close());
      return { text: offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd'] }), fds: [uffd, small.fd] };
    },
    'BAD_HANDSHAKE',
    /region 0 ends at byte 262144 of a memory file of 258048 bytes/,
  ],
  [
    'a memfd whose regions lie beyond its end',
    async (t, vmm) => {
      const [uffd, memfd] = await vmmFds(t, vmm);
      const regions = [{ ...regionOf(vmm), file_offset: 4096 }];
      return { text: offer({ regions, fds: ['uffd', 'memfd'] }), fds: [uffd, memfd] };
    },
    'BAD_HANDSHAKE',
    /region 0 ends at byte/,
  ],
  [
    'a memfd that is populated already',
    async (t, vmm) => {
      const [uffd, memfd] = await vmmFds(t, vmm);
      const file = MemoryFile.open(`/proc/${String(process.pid)}/fd/${String(memfd)}`, { write: true });
      file.write(Buffer.alloc(8192, 1), 0, 8192, 4096);
      file.close();
      return { text: offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd'] }), fds: [uffd, memfd] };
    },
    'BAD_HANDSHAKE',
    /region 0 is not empty: 8192 bytes.*prealloc=off/,
  ],
  [
    'a memfd that a guest may run on',
    async (t, vmm) => {
      const fds = await vmmFds(t, vmm);
      return { text: offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd'], content: 'live' }), fds };
    },
    'BAD_HANDSHAKE',
    /a guest may run on this memory already \(content: live\)/,
  ],
  [
    'memory to be thrown away that has no file',
    async (t, vmm) => {
      const [uffd] = await vmmFds(t, vmm);
      return { text: offer({ regions: [regionOf(vmm)], content: 'discard' }), fds: [uffd] };
    },
    'BAD_HANDSHAKE',
    /\(content: discard\), but no memory file came over/,
  ],
  [
    'one file as two',
    async (t, vmm) => {
      const [uffd, memfd] = await vmmFds(t, vmm);
      const half = { ...regionOf(vmm), size: (PAGES / 2) * 4096, file_offset: 0 };
      const regions = [
        { ...half, fd: 1 },
        { ...half, fd: 2, offset: half.size, base_host_virt_addr: half.base_host_virt_addr + half.size },
      ];
      return { text: offer({ regions, fds: ['uffd', 'memfd', 'memfd'] }), fds: [uffd, memfd, memfd] };
    },
    'BAD_HANDSHAKE',
    /memory files 0 and 1 are the same file/,
  ],
  [
    'a memfd that is no memory',
    async (t, vmm) => {
      const [uffd] = await vmmFds(t, vmm);
      const fd = openSync('/dev/null', 'r+');
      t.after(() => closeSync(fd));
      return { text: offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd'] }), fds: [uffd, fd] };
    },
    'BAD_HANDSHAKE',
    /memory file is a/,
  ],
  [
    'a guest_memfd that is a memfd',
    async (t, vmm) => {
      const [, memfd] = await vmmFds(t, vmm);
      return { text: offer({ regions: [regionOf(vmm)], fds: ['guest_memfd'], registered: [] }), fds: [memfd] };
    },
    'BAD_HANDSHAKE',
    /memory file is a memfd-or-shmem; guest_memfd was expected/,
  ],
  [
    'the memory of another VM',
    async (t, vmm) => ({
      text: offer({ vm: 'other', regions: [regionOf(vmm)], fds: ['uffd', 'memfd'] }),
      fds: await vmmFds(t, vmm),
    }),
    'BAD_HANDSHAKE',
    /says it is other; this socket is for demo/,
  ],
  [
    'ranges registered for minor faults alone',
    async (t, vmm) => ({
      text: offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd'], registered: ['minor'] }),
      fds: await vmmFds(t, vmm),
    }),
    'MISSING_CAPABILITY',
    /minor faults alone/,
  ],
  ...(
    [
      ['that can become shorter', PAGES, /the bitmap cannot be used: .*MFD_ALLOW_SEALING/],
      ['of too few pages', PAGES - 64, /the bitmap cannot be used: .*64 pages need 8/],
    ] as const
  ).map(
    ([what, pages, message]) =>
      [
        `a bitmap ${what}`,
        async (t: TestContext, vmm: Toucher) => {
          const sealable = pages < PAGES;
          const bitmap = MemoryFile.createMemfd('bitmap', pages / 8, { sealable });
          t.after(() => bitmap.close());
          return {
            text: offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd', 'bitmap'] }),
            fds: [...(await vmmFds(t, vmm)), bitmap.fd],
          };
        },
        'BAD_HANDSHAKE',
        message,
      ] as const,
  ),
  [
    'nothing that leads into the memory',
    () => Promise.resolve({ text: offer({ fds: [], registered: [] }), fds: [] }),
    'MISSING_CAPABILITY',
    /no way into the memory/,
  ],
];

for (const [law, peerOf, reason, message] of BAD_MEMORY)
  test(`${law}: ${reason}, and no descriptor is kept`, UFFD, async (t) => {
    const vmm = await startVmm(t);
    const { text, fds } = await peerOf(t, vmm);
    const before = readdirSync('/proc/self/fd').length;
    assert.throws(
      () => admit(t, text, fds),
      (error) => error instanceof PagewakeError && error.reasonName === reason && message.test(error.message),
      reason,
    );
    assert.equal(readdirSync('/proc/self/fd').length, before);
  });

test('what is as it was offered is admitted, with its tier and traits, and closed with the object', UFFD, async (t) => {
  const vmm = await startVmm(t, { minor: true, removeEvents: true });
  const fds = await vmmFds(t, vmm);
  const before = readdirSync('/proc/self/fd').length;
  const text = offer({
    regions: [regionOf(vmm)],
    fds: ['uffd', 'memfd'],
    registered: ['missing', 'minor'],
    vcpus: [7],
  });
  const vm = admit(t, text, fds);
  assert.deepEqual([vm.choice.tier, vm.choice.mode, vm.choice.trapped], ['memfd', 'post-copy', true]);
  const { traits, removeEvents, pid } = vm.attachment;
  assert.deepEqual(
    [traits.file, traits.minor, traits.huge, removeEvents, pid],
    ['shared', true, false, true, undefined],
  );
  assert.deepEqual(vm.vcpuThreads, [7]);
  vm.noteZero(0, 10);
  assert.deepEqual(vm.totals(), { total: 64, unresolved: 54, zeroAtOpen: 10, removed: 0 });
  vm.close();
  assert.equal(readdirSync('/proc/self/fd').length, before);
});

test('another VM’s memory is not thrown away', UFFD, async (t) => {
  const vmm = await startVmm(t, { prefill: { page: 3, byte: 7 } });
  const fds = await vmmFds(t, vmm);
  const text = offer({ vm: 'other', regions: [regionOf(vmm)], fds: ['uffd', 'memfd'], content: 'discard' });
  assert.throws(() => admit(t, text, fds), /the VMM says it is other/);
  assert.deepEqual(await vmm.touch(0, 3), seen(Buffer.alloc(4096, 7)));
});

test(
  'poison without any lane: who waits and who comes later gets a SIGBUS',
  { ...UFFD, skip: UFFD.skip || lacking('UFFDIO_POISON') },
  async (t) => {
    const vmm = await startVmm(t);
    const fds = await vmmFds(t, vmm);
    const vm = admit(t, offer({ regions: [regionOf(vmm)], fds: ['uffd', 'memfd'] }), fds);
    t.after(() => vm.close());
    const waits = vmm.touch(0, 5);
    assert.deepEqual(await vm.poison(), { pages: PAGES, refused: undefined });
    assert.deepEqual(await waits, SIGBUS);
    assert.deepEqual(await vmm.touch(1, 63), SIGBUS);
  },
);

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endOfJson, HandshakeError } from './checked.ts';
import { parseHandshake } from './handshake.ts';

const K4 = 4096;
const M2 = 2 * 1024 * 1024;
const BASE = 0x7f00_0000_0000;

const region = { base_host_virt_addr: BASE, size: 8 * K4, offset: 0, page_size: K4 };
const own = {
  protocol: 'pagewake/1',
  vm: 'demo',
  regions: [region],
  fds: ['uffd', 'memfd'],
  registered: ['missing'],
  vcpus: [4711, 4712],
};

const parse = (value: unknown, descriptorCount = 2) => parseHandshake(JSON.stringify(value), descriptorCount);
const refuses = (value: unknown, message: RegExp, descriptorCount = 2): void =>
  assert.throws(
    () => parse(value, descriptorCount),
    (error) => error instanceof HandshakeError && message.test(error.message),
    String(message),
  );

test('our own handshake is read whole', () => {
  const offer = parse({ ...own, registered: ['missing', 'minor'] });
  assert.equal(offer.dialect, 'pagewake/1');
  assert.equal(offer.vmId, 'demo');
  assert.deepEqual(offer.descriptors, ['uffd', 'memfd']);
  assert.deepEqual([offer.missing, offer.minor], [true, true]);
  assert.deepEqual(offer.vcpuThreads, [4711, 4712]);
  assert.equal(offer.layout.regions[0]?.address, BASE);
  assert.equal(offer.layout.regions[0]?.fileOffset, 0);
});

test('file_offset is the offset unless it is given, and vcpus may be absent', () => {
  const second = { ...region, base_host_virt_addr: BASE + M2, offset: 8 * K4 };
  const { vcpus: _, ...rest } = own;
  const offer = parse({ ...rest, regions: [region, { ...second, file_offset: M2 }] });
  assert.deepEqual(
    offer.layout.regions.map((r) => r.fileOffset),
    [0, M2],
  );
  assert.equal(parse({ ...rest, regions: [region, second] }).layout.regions[1]?.fileOffset, 8 * K4);
  assert.deepEqual(offer.vcpuThreads, []);
});

test('memory that cannot be trapped comes with its file alone', () => {
  const offer = parse({ ...own, fds: ['guest_memfd'], registered: [] }, 1);
  assert.deepEqual([offer.missing, offer.minor], [false, false]);
  assert.deepEqual(offer.descriptors, ['guest_memfd']);
});

const { vm: _vm, ...withoutVm } = own;

test('a VMM need not say which VM it is', () => {
  assert.equal(parse(withoutVm).vmId, undefined);
});

test('memory is empty unless the VMM says that it may be thrown away, or that a guest may run on it', () => {
  assert.equal(parse(own).content, 'empty');
  for (const content of ['empty', 'discard', 'live']) assert.equal(parse({ ...own, content }).content, content);
});

const second = { ...region, base_host_virt_addr: BASE + M2, offset: 8 * K4 };

test('several memory files: each region is in its own, at its own place, and may overlap another file’s', () => {
  const regions = [
    { ...region, fd: 2, file_offset: K4, name: '/dev/shm/b' },
    { ...second, fd: 0, file_offset: 0 },
  ];
  const { layout } = parse({ ...own, regions, fds: ['memfd', 'uffd', 'memfd'] }, 3);
  assert.deepEqual(
    layout.regions.map(({ file, fileOffset, name }) => [file, fileOffset, name]),
    [
      [1, K4, '/dev/shm/b'],
      [0, 0, undefined],
    ],
  );
});

test('two regions of one file are in it once each', () => {
  const regions = [region, { ...second, file_offset: 8 * K4 }].map((r) => ({ ...r, fd: 1 }));
  assert.deepEqual(
    parse({ ...own, regions }).layout.regions.map(({ file, fileOffset }) => [file, fileOffset]),
    [
      [0, 0],
      [0, 8 * K4],
    ],
  );
});

const secretFree = { ...region, gpa_start: 0, is_guest_memfd: true };

const TWO_FILES = { ...own, fds: ['uffd', 'memfd', 'memfd'] };
const inFiles = (...fds: readonly (number | undefined)[]) => ({
  ...TWO_FILES,
  regions: [region, second].map((r, i) => ({ ...r, file_offset: 0, fd: fds[i] })),
});

const BAD: readonly (readonly [law: string, value: unknown, message: RegExp, descriptors?: number])[] = [
  ['a number', 5, /^the handshake: /],
  ['null', null, /^the handshake: /],
  ['another protocol', { ...own, protocol: 'pagewake/2' }, /^protocol: .*pagewake\/1/],
  ['an empty vm', { ...own, vm: '' }, /^vm: /],
  ['a vm that is no text', { ...own, vm: 7 }, /^vm: /],
  ['regions that are no list', { ...own, regions: {} }, /^regions: /],
  ['no regions', { ...own, regions: [] }, /no regions/],
  [
    'a region without an address',
    { ...own, regions: [{ ...region, base_host_virt_addr: undefined }] },
    /^regions\.0\.base_host_virt_addr: /,
  ],
  [
    'an address as text',
    { ...own, regions: [{ ...region, base_host_virt_addr: '0x7f' }] },
    /^regions\.0\.base_host_virt_addr: /,
  ],
  [
    'an address beyond 2^53',
    { ...own, regions: [{ ...region, base_host_virt_addr: 2 ** 60 }] },
    /^regions\.0\.base_host_virt_addr: /,
  ],
  ['a negative size', { ...own, regions: [{ ...region, size: -K4 }] }, /^regions\.0\.size: /],
  ['half a byte of offset', { ...own, regions: [{ ...region, offset: 0.5 }] }, /^regions\.0\.offset: /],
  [
    'a region without page_size',
    { ...own, regions: [{ ...region, page_size: undefined }] },
    /^regions\.0\.page_size: /,
  ],
  [
    'page_size_kib, which our own dialect has not',
    { ...own, regions: [{ ...region, page_size_kib: 4 }] },
    /^regions\.0: .*page_size_kib/,
  ],
  [
    'a page size that is not possible',
    { ...own, regions: [{ ...region, page_size: 1024 }] },
    /region 0: page size 1024/,
  ],
  ['a file_offset off the page', { ...own, regions: [{ ...region, file_offset: 1 }] }, /region 0: file_offset 1 /],
  ['the second region wrong', { ...own, regions: [region, { ...region, size: 'x' }] }, /^regions\.1\.size: /],
  ['a descriptor of no known kind', { ...own, fds: ['uffd', 'socket'] }, /^fds\.1: /],
  ['the same descriptor twice', { ...own, fds: ['uffd', 'uffd'] }, /^fds names a descriptor twice$/],
  ['fewer descriptors than named', own, /^fds names 2 descriptors, 1 came with the message$/, 1],
  ['more descriptors than named', own, /^fds names 2 descriptors, 3 came with the message$/, 3],
  ['none where two are named', own, /^fds names 2 descriptors, 0 came/, 0],
  ['a content of no known kind', { ...own, content: 'old' }, /^content: /],
  ['an empty name', { ...own, regions: [{ ...region, name: '' }] }, /^regions\.0\.name: /],
  ['a region in the uffd', { ...own, regions: [{ ...region, fd: 0 }] }, /^region 0: fd 0 is none of the memory files/],
  ['a region in no descriptor', { ...own, regions: [{ ...region, fd: 7 }] }, /^region 0: fd 7 is none of/],
  ['several files, and a region that does not say its own', inFiles(1, undefined), /^region 1: with several/, 3],
  [
    'several files, and a region that does not say where',
    { ...TWO_FILES, regions: [{ ...region, fd: 1 }] },
    /^region 0: with several memory files/,
    3,
  ],
  ['a file of no region', inFiles(1, 1), /^fds\.2 is the memory file of no region$/, 3],
  ['two regions in one place of one file', { ...inFiles(1, 1), fds: own.fds }, /overlap in their places in the memory/],
  [
    'a memfd and a guest_memfd',
    { ...inFiles(0, 1), fds: ['memfd', 'guest_memfd'], registered: [] },
    /^fds names a memfd and a guest_memfd/,
  ],
  ['two guest_memfds', { ...inFiles(0, 1), fds: ['guest_memfd', 'guest_memfd'], registered: [] }, /descriptor twice/],
  [
    'a bitmap without a memory file',
    { ...own, fds: ['uffd', 'bitmap'] },
    /^a bitmap is of one memory file's pages; 0 /,
  ],
  [
    'a bitmap of two memory files',
    { ...inFiles(1, 2), fds: ['bitmap', 'memfd', 'memfd'], registered: [] },
    /^a bitmap is of one memory file's pages; 2 /,
    3,
  ],
  ['two bitmaps', { ...own, fds: ['memfd', 'bitmap', 'bitmap'], registered: [] }, /descriptor twice/, 3],
  [
    'a bitmap of pages of 2 MiB',
    { ...own, regions: [{ ...region, size: M2, page_size: M2 }], fds: ['uffd', 'memfd', 'bitmap'] },
    /^region 0: page size 2097152; with a bitmap it is 4096$/,
    3,
  ],
  ['a gpa_start off the page', { ...own, regions: [{ ...region, gpa_start: 1 }] }, /region 0: gpa_start 1 /],
  [
    'a gpa_start of some regions',
    { ...own, regions: [region, { ...second, gpa_start: 0 }] },
    /^1 of 2 regions have a gpa_start/,
  ],
  [
    'two regions that the guest sees in one place',
    { ...own, regions: [region, second].map((r) => ({ ...r, gpa_start: K4 })) },
    /regions 0 and 1 overlap in their guest addresses/,
  ],
  ['a mode of no known kind', { ...own, registered: ['wp'] }, /^registered\.0: /],
  ['modes without a uffd', { ...own, fds: ['memfd'] }, /^registered names modes, but no uffd came over$/, 1],
  ['a vCPU thread of 0', { ...own, vcpus: [0] }, /^vcpus\.0: /],
  ['vcpus that are no list', { ...own, vcpus: 4711 }, /^vcpus: /],
  ['a field that does not exist', { ...own, memory: 1 }, /memory/],
  ['firecracker: no size', [{ base_host_virt_addr: BASE, offset: 0, page_size: K4 }], /^0\.size: /, 1],
  ['firecracker: a negative offset', [{ ...region, offset: -1 }], /^0\.offset: /, 1],
  [
    'firecracker: no page size at all',
    [{ ...region, page_size: undefined }],
    /^region 0: neither page_size nor page_size_kib is there$/,
    1,
  ],
  ['firecracker: no regions', [], /no regions/, 1],
  ['firecracker: a gap', [{ ...region, offset: K4 }], /region 0: offset is 4096/, 1],
  [
    'firecracker: no descriptor',
    [region],
    /^0 descriptors came with a Firecracker handshake; it has one, the userfaultfd, or three/,
    0,
  ],
  ['firecracker: two descriptors', [region], /^2 descriptors came with a Firecracker handshake/, 2],
  [
    'firecracker: a guest_memfd that did not come',
    [secretFree],
    /^region 0 is in a guest_memfd, but its descriptor/,
    1,
  ],
  ['secret-free: no gpa_start', [{ ...secretFree, gpa_start: undefined }], /^0\.gpa_start: /, 3],
  ['secret-free: a negative gpa_start', [{ ...secretFree, gpa_start: -K4 }], /^0\.gpa_start: /, 3],
  ['secret-free: is_guest_memfd as a number', [{ ...secretFree, is_guest_memfd: 1 }], /^0\.is_guest_memfd: /, 3],
  [
    'secret-free: one region in a guest_memfd, one not',
    [secretFree, { ...secretFree, ...second, gpa_start: M2, is_guest_memfd: false }],
    /^region 1: is_guest_memfd differs/,
    3,
  ],
  [
    'secret-free: pages of 2 MiB',
    [{ ...secretFree, size: M2, page_size: M2 }],
    /^region 0: page size 2097152; with a bitmap it is 4096$/,
    3,
  ],
  ['secret-free: no regions', [], /no regions/, 3],
];

for (const [law, value, message, descriptors] of BAD)
  test(`refused, with the field's name: ${law}`, () => refuses(value, message, descriptors));

test('what is no JSON is quoted, and cut short', () => {
  assert.throws(
    () => parseHandshake('GET / HTTP/1.1', 0),
    (error) => error instanceof HandshakeError && /is not JSON.*"GET \/ HTTP/.test(error.message),
  );
  assert.throws(
    () => parseHandshake('x'.repeat(100_000), 0),
    (error) => error instanceof HandshakeError && error.message.length < 200,
  );
});

test("Firecracker's array: missing faults alone, no name, one uffd, the image's offsets", () => {
  const offer = parse([{ ...region, page_size_kib: K4, is_new: true }], 1);
  assert.equal(offer.dialect, 'firecracker');
  assert.equal(offer.vmId, undefined);
  assert.deepEqual(offer.descriptors, ['uffd']);
  assert.deepEqual([offer.missing, offer.minor], [true, false]);
  assert.deepEqual(offer.vcpuThreads, []);
});

test('page_size_kib is in bytes despite its name', () => {
  const { page_size: __, ...old } = region;
  const offer = parse([{ ...old, size: 2 * M2, page_size_kib: M2 }], 1);
  assert.equal(offer.layout.regions[0]?.pageSizeBytes, M2);
  assert.equal(offer.layout.pageCount, 2);
});

test('a bitmap goes with one memory file, of either kind', () => {
  for (const file of ['memfd', 'guest_memfd'] as const) {
    const { descriptors } = parse({ ...own, fds: ['uffd', file, 'bitmap'] }, 3);
    assert.deepEqual(descriptors, ['uffd', file, 'bitmap']);
  }
});

test('a page may be named by where the guest sees it', () => {
  const regions = [
    { ...region, gpa_start: 4 * M2 },
    { ...second, gpa_start: 0 },
  ];
  const { layout } = parse({ ...own, regions });
  for (const [gpa, index, page] of [
    [0, 1, 0],
    [8 * K4 - 1, 1, 7],
    [4 * M2 + K4, 0, 1],
  ] as const) {
    const place = layout.atGpa(gpa);
    assert.deepEqual([place?.region.index, place?.page], [index, page]);
  }
  for (const gpa of [8 * K4, 4 * M2 - 1, 4 * M2 + 8 * K4, -1]) assert.equal(layout.atGpa(gpa), undefined);
  assert.equal(parse(own).layout.atGpa(0), undefined);
});

test("Firecracker's array with three descriptors: its secret-free branch, missing and minor, a bitmap, guest addresses", () => {
  for (const [is_guest_memfd, file] of [
    [true, 'guest_memfd'],
    [false, 'memfd'],
  ] as const) {
    const offer = parse([{ ...secretFree, is_guest_memfd, is_new: 1 }], 3);
    assert.equal(offer.dialect, 'firecracker-secret-free');
    assert.deepEqual(offer.descriptors, ['uffd', file, 'bitmap']);
    assert.deepEqual([offer.missing, offer.minor], [true, true]);
    assert.equal(offer.layout.regions[0]?.gpaStart, 0);
  }
});

test("an array is a plain Firecracker's with one descriptor, also where it has the secret-free branch's fields", () => {
  assert.equal(parse([{ ...secretFree, is_guest_memfd: false }], 1).dialect, 'firecracker');
});

test('an array is over at its own last bracket, wherever it was cut before, and whatever follows', () => {
  const nested = { ...region, more: [1, ['a]"', '\\']], '}': '"]' };
  for (const text of [JSON.stringify([nested]), JSON.stringify([nested, nested], null, 2), '[]', '[{"size":}]']) {
    for (let length = 0; length < text.length; length++) assert.equal(endOfJson(text.slice(0, length)), undefined);
    for (const after of ['', '\n', '[]', '"']) assert.equal(endOfJson(text + after), text.length);
  }
});

test('page_size goes before page_size_kib', () => {
  const offer = parse([{ ...region, page_size: K4, page_size_kib: M2 }], 1);
  assert.equal(offer.layout.regions[0]?.pageSizeBytes, K4);
});

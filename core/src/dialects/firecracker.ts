/** Firecracker's bare array: with one descriptor its main branch's, with three its secret-free branch's (docs/protocol.md). */
import { z } from 'zod';
import { check, HandshakeError, layoutOf } from '../checked.ts';
import type { RegionInput } from '../layout.ts';
import { whyNoBitmap, type VmmOffer } from '../offer.ts';

const bytes = z.int().nonnegative();

const region = z.looseObject({
  base_host_virt_addr: bytes,
  size: bytes,
  offset: bytes,
  page_size: bytes.optional(),
  page_size_kib: bytes.optional(),
});
type ArrayRegion = z.output<typeof region>;

const secretFreeRegion = region.extend({ gpa_start: bytes, is_guest_memfd: z.boolean() });

function inputOf(r: ArrayRegion, index: number): RegionInput {
  // page_size_kib is in bytes despite its name; it goes away in Firecracker's next major version.
  const pageSizeBytes = r.page_size ?? r.page_size_kib;
  if (pageSizeBytes === undefined)
    throw new HandshakeError(`region ${index}: neither page_size nor page_size_kib is there`);
  return { address: r.base_host_virt_addr, sizeBytes: r.size, offset: r.offset, fileOffset: r.offset, pageSizeBytes };
}

const COMMON = { vmId: undefined, content: 'empty', givenBack: [], missing: true, vcpuThreads: [] } as const;

function parsePlain(value: unknown): VmmOffer {
  const regions = check(z.array(region), value, 'the handshake');
  const inGuestMemfd = regions.findIndex((r) => r['is_guest_memfd'] === true);
  if (inGuestMemfd >= 0)
    throw new HandshakeError(
      `region ${inGuestMemfd} is in a guest_memfd, but its descriptor did not come over: beside the userfaultfd come the guest_memfd and the bitmap`,
    );
  return {
    ...COMMON,
    dialect: 'firecracker',
    layout: layoutOf(regions.map(inputOf)),
    descriptors: ['uffd'],
    minor: false,
  };
}

function parseSecretFree(value: unknown): VmmOffer {
  const regions = check(z.array(secretFreeRegion), value, 'the handshake');
  const inGuestMemfd = regions[0]?.is_guest_memfd;
  const other = regions.findIndex((r) => r.is_guest_memfd !== inGuestMemfd);
  if (other >= 0)
    throw new HandshakeError(
      `region ${other}: is_guest_memfd differs from region 0's; one memory file has all of them`,
    );
  const layout = layoutOf(regions.map((r, index) => ({ ...inputOf(r, index), gpaStart: r.gpa_start })));
  const descriptors = ['uffd', inGuestMemfd ? 'guest_memfd' : 'memfd', 'bitmap'] as const;
  const wrong = whyNoBitmap(descriptors, layout);
  if (wrong !== undefined) throw new HandshakeError(wrong);
  return { ...COMMON, dialect: 'firecracker-secret-free', layout, descriptors, minor: true };
}

/** @throws HandshakeError that names the field and what is wrong with it */
export function parseFirecracker(value: readonly unknown[], descriptorCount: number): VmmOffer {
  if (descriptorCount === 1) return parsePlain(value);
  if (descriptorCount === 3) return parseSecretFree(value);
  check(z.array(region), value, 'the handshake');
  throw new HandshakeError(
    `${descriptorCount} descriptors came with a Firecracker handshake; it has one, the userfaultfd, or three where it is secret-free: userfaultfd, memory file, bitmap`,
  );
}

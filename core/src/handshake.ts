/**
 * What a VMM says when it hands its memory over, in the two forms of docs/protocol.md: our own object, and Firecracker's bare
 * array. Text in, a checked offer out; nothing here knows a descriptor from a number.
 */
import { z } from 'zod';
import { GuestLayout, LayoutError, type RegionInput } from './layout.ts';

export type DescriptorName = 'uffd' | 'memfd' | 'guest_memfd' | 'bitmap';

export interface VmmOffer {
  readonly dialect: 'pagewake/1' | 'firecracker';
  /** The VM that the VMM says it is; Firecracker does not say. */
  readonly vmId: string | undefined;
  readonly layout: GuestLayout;
  /** What each descriptor is, in the order in which they came. */
  readonly descriptors: readonly DescriptorName[];
  readonly missing: boolean;
  readonly minor: boolean;
  /** Thread ids of vCPU threads, as the VMM itself sees them. */
  readonly vcpuThreads: readonly number[];
}

export class HandshakeError extends Error {
  override readonly name = 'HandshakeError';
}

const bytes = z.int().nonnegative();

const firecrackerRegion = z.looseObject({
  base_host_virt_addr: bytes,
  size: bytes,
  offset: bytes,
  page_size: bytes.optional(),
  page_size_kib: bytes.optional(),
});

const ownRegion = z.strictObject({
  base_host_virt_addr: bytes,
  size: bytes,
  offset: bytes,
  page_size: bytes,
  file_offset: bytes.optional(),
});

const ownHandshake = z.strictObject({
  protocol: z.literal('pagewake/1'),
  vm: z.string().min(1),
  regions: z.array(ownRegion),
  fds: z.array(z.enum(['uffd', 'memfd', 'guest_memfd', 'bitmap'])),
  registered: z.array(z.enum(['missing', 'minor'])),
  vcpus: z.array(z.int().positive()).default([]),
});

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new HandshakeError(`the handshake is not JSON: it begins with ${JSON.stringify(text.slice(0, 40))}`);
  }
}

function check<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue?.path.length ? issue.path.join('.') : 'the handshake';
  throw new HandshakeError(`${path}: ${issue?.message ?? 'not as expected'}`);
}

function layoutOf(inputs: readonly RegionInput[]): GuestLayout {
  try {
    return new GuestLayout(inputs);
  } catch (error) {
    if (error instanceof LayoutError) throw new HandshakeError(error.message);
    throw error;
  }
}

function parseFirecracker(value: unknown, descriptorCount: number): VmmOffer {
  const regions = check(z.array(firecrackerRegion), value);
  if (descriptorCount !== 1)
    throw new HandshakeError(
      `${descriptorCount} descriptors came with a Firecracker handshake; it has one, the userfaultfd`,
    );
  const inputs = regions.map((r, index): RegionInput => {
    // page_size_kib is in bytes despite its name; it goes away in Firecracker's next major version.
    const pageSizeBytes = r.page_size ?? r.page_size_kib;
    if (pageSizeBytes === undefined)
      throw new HandshakeError(`region ${index}: neither page_size nor page_size_kib is there`);
    return { address: r.base_host_virt_addr, sizeBytes: r.size, offset: r.offset, fileOffset: r.offset, pageSizeBytes };
  });
  return {
    dialect: 'firecracker',
    vmId: undefined,
    layout: layoutOf(inputs),
    descriptors: ['uffd'],
    missing: true,
    minor: false,
    vcpuThreads: [],
  };
}

function parseOwn(value: unknown, descriptorCount: number): VmmOffer {
  const offer = check(ownHandshake, value);
  if (offer.fds.length !== descriptorCount)
    throw new HandshakeError(`fds names ${offer.fds.length} descriptors, ${descriptorCount} came with the message`);
  if (new Set(offer.fds).size !== offer.fds.length) throw new HandshakeError('fds names a descriptor twice');
  if (offer.registered.length > 0 && !offer.fds.includes('uffd'))
    throw new HandshakeError('registered names modes, but no uffd came over');
  return {
    dialect: 'pagewake/1',
    vmId: offer.vm,
    layout: layoutOf(
      offer.regions.map((r) => ({
        address: r.base_host_virt_addr,
        sizeBytes: r.size,
        offset: r.offset,
        fileOffset: r.file_offset ?? r.offset,
        pageSizeBytes: r.page_size,
      })),
    ),
    descriptors: offer.fds,
    missing: offer.registered.includes('missing'),
    minor: offer.registered.includes('minor'),
    vcpuThreads: offer.vcpus,
  };
}

/**
 * Reads a handshake.
 * @param text the whole JSON text
 * @param descriptorCount how many descriptors came with it
 * @throws HandshakeError that names the field and what is wrong with it
 */
export function parseHandshake(text: string, descriptorCount: number): VmmOffer {
  const value = parseJson(text);
  return Array.isArray(value) ? parseFirecracker(value, descriptorCount) : parseOwn(value, descriptorCount);
}

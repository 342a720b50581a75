/**
 * What a VMM says when it hands its memory over, in the two forms of docs/protocol.md: our own object, and Firecracker's bare
 * array. Text in, a checked offer out; nothing here knows a descriptor from a number.
 */
import { z } from 'zod';
import { GuestLayout, LayoutError, type RegionInput } from './layout.ts';

export type DescriptorName = 'uffd' | 'memfd' | 'guest_memfd' | 'bitmap';

/**
 * What the memory holds as it is handed over. `empty`: nothing, which is checked. `discard`: nobody has run on it, so what it holds may be thrown
 * away. `live`: a guest may run on it, so only who continues its migration may take it.
 */
export type OfferedContent = 'empty' | 'discard' | 'live';

export interface VmmOffer {
  readonly dialect: 'pagewake/1' | 'firecracker';
  /** The VM that the VMM says it is; Firecracker does not say. */
  readonly vmId: string | undefined;
  readonly layout: GuestLayout;
  readonly content: OfferedContent;
  /** Live memory: what the guest gave back last. The agent that died may have read of it and not have come to note it. */
  readonly givenBack: readonly { readonly offset: number; readonly len: number }[];
  /** What each descriptor is, in the order in which they came. The regions' `file` counts the memory files among them. */
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
  name: z.string().min(1).optional(),
  fd: bytes.optional(),
});
type OwnRegion = z.output<typeof ownRegion>;

const ownHandshake = z.strictObject({
  protocol: z.literal('pagewake/1'),
  vm: z.string().min(1).optional(),
  regions: z.array(ownRegion),
  fds: z.array(z.enum(['uffd', 'memfd', 'guest_memfd', 'bitmap'])),
  registered: z.array(z.enum(['missing', 'minor'])),
  vcpus: z.array(z.int().positive()).default([]),
  content: z.enum(['empty', 'discard', 'live']).default('empty'),
  given_back: z.array(z.strictObject({ offset: bytes, len: z.int().positive() })).default([]),
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
    content: 'empty',
    givenBack: [],
    descriptors: ['uffd'],
    missing: true,
    minor: false,
    vcpuThreads: [],
  };
}

const isFile = (name: DescriptorName): boolean => name === 'memfd' || name === 'guest_memfd';

/** Regions with the file that each is in, and its place there. */
function regionInputs(regions: readonly OwnRegion[], fds: readonly DescriptorName[]): RegionInput[] {
  const files = [...fds.keys()].filter((fd) => isFile(fds[fd] ?? 'uffd'));
  const several = files.length > 1;
  const inputs = regions.map((r, index): RegionInput => {
    if (several && (r.fd === undefined || r.file_offset === undefined))
      throw new HandshakeError(`region ${index}: with several memory files a region says its fd and its file_offset`);
    const file = r.fd === undefined ? 0 : files.indexOf(r.fd);
    if (file < 0) throw new HandshakeError(`region ${index}: fd ${r.fd} is none of the memory files in fds`);
    return {
      address: r.base_host_virt_addr,
      sizeBytes: r.size,
      offset: r.offset,
      pageSizeBytes: r.page_size,
      file,
      fileOffset: r.file_offset ?? r.offset,
      name: r.name,
    };
  });
  const idle = files.find((_fd, file) => !inputs.some((input) => input.file === file));
  if (several && idle !== undefined) throw new HandshakeError(`fds.${idle} is the memory file of no region`);
  return inputs;
}

function parseOwn(value: unknown, descriptorCount: number): VmmOffer {
  const offer = check(ownHandshake, value);
  if (offer.fds.length !== descriptorCount)
    throw new HandshakeError(`fds names ${offer.fds.length} descriptors, ${descriptorCount} came with the message`);
  const once = offer.fds.filter((name) => name !== 'memfd');
  if (new Set(once).size !== once.length) throw new HandshakeError('fds names a descriptor twice');
  if (offer.fds.includes('memfd') && offer.fds.includes('guest_memfd'))
    throw new HandshakeError('fds names a memfd and a guest_memfd; a VM is in files of one kind');
  if (offer.registered.length > 0 && !offer.fds.includes('uffd'))
    throw new HandshakeError('registered names modes, but no uffd came over');
  return {
    dialect: 'pagewake/1',
    vmId: offer.vm,
    layout: layoutOf(regionInputs(offer.regions, offer.fds)),
    content: offer.content,
    givenBack: offer.given_back,
    descriptors: offer.fds,
    missing: offer.registered.includes('missing'),
    minor: offer.registered.includes('minor'),
    vcpuThreads: offer.vcpus,
  };
}

/**
 * Where the JSON array that `text` begins with is over: behind its last bracket. Undefined: not yet. Only what it nests counts, so a text that is no
 * JSON has its end too, and is refused there.
 */
export function endOfArray(text: string): number | undefined {
  let depth = 0;
  // A string, whole or cut off, is passed over with the brackets in it.
  for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*(?:"|\\?$)|[[\]{}]/gs)) {
    if (token === '[' || token === '{') depth += 1;
    else if (token === ']' || token === '}') depth -= 1;
    if (depth === 0) return index + token.length;
  }
  return undefined;
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

/**
 * What a VMM says when it hands its memory over: our own object here, Firecracker's bare array in dialects/ (docs/protocol.md). Text in, a checked offer
 * out; nothing here knows a descriptor from a number.
 */
import { z } from 'zod';
import { check, HandshakeError, layoutOf, parseJson } from './checked.ts';
import { parseFirecracker } from './dialects/firecracker.ts';
import type { RegionInput } from './layout.ts';
import { whyNoBitmap, type DescriptorName, type VmmOffer } from './offer.ts';

const bytes = z.int().nonnegative();

const ownRegion = z.strictObject({
  base_host_virt_addr: bytes,
  size: bytes,
  offset: bytes,
  page_size: bytes,
  file_offset: bytes.optional(),
  gpa_start: bytes.optional(),
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

const isFile = (name: DescriptorName): boolean => name === 'memfd' || name === 'guest_memfd';

/** Regions with the file that each is in, and its place there. */
function regionInputs(regions: readonly OwnRegion[], fds: readonly DescriptorName[]): RegionInput[] {
  const files = [...fds.keys()].filter((fd) => isFile(fds[fd] ?? 'uffd'));
  const several = files.length > 1;
  const withGpa = regions.filter((r) => r.gpa_start !== undefined).length;
  if (withGpa > 0 && withGpa < regions.length)
    throw new HandshakeError(`${withGpa} of ${regions.length} regions have a gpa_start; all have one, or none has`);
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
      gpaStart: r.gpa_start,
      name: r.name,
    };
  });
  const idle = files.find((_fd, file) => !inputs.some((input) => input.file === file));
  if (several && idle !== undefined) throw new HandshakeError(`fds.${idle} is the memory file of no region`);
  return inputs;
}

function parseOwn(value: unknown, descriptorCount: number): VmmOffer {
  const offer = check(ownHandshake, value, 'the handshake');
  if (offer.fds.length !== descriptorCount)
    throw new HandshakeError(`fds names ${offer.fds.length} descriptors, ${descriptorCount} came with the message`);
  const once = offer.fds.filter((name) => name !== 'memfd');
  if (new Set(once).size !== once.length) throw new HandshakeError('fds names a descriptor twice');
  if (offer.fds.includes('memfd') && offer.fds.includes('guest_memfd'))
    throw new HandshakeError('fds names a memfd and a guest_memfd; a VM is in files of one kind');
  if (offer.registered.length > 0 && !offer.fds.includes('uffd'))
    throw new HandshakeError('registered names modes, but no uffd came over');
  const layout = layoutOf(regionInputs(offer.regions, offer.fds));
  const wrong = whyNoBitmap(offer.fds, layout);
  if (wrong !== undefined) throw new HandshakeError(wrong);
  return {
    dialect: 'pagewake/1',
    vmId: offer.vm,
    layout,
    content: offer.content,
    givenBack: offer.given_back,
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
  const value = parseJson(text, 'the handshake');
  return Array.isArray(value) ? parseFirecracker(value, descriptorCount) : parseOwn(value, descriptorCount);
}

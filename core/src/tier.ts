/** Which way a VM's memory can be filled, and whether its guest may run meanwhile. Decided once a VM, and said aloud. */
import { DIALECTS } from './dialects/dialect.ts';
import type { DescriptorName, VmmOffer } from './offer.ts';

export type Tier = 'guest-memfd-full' | 'guest-memfd-eager' | 'memfd-userfault' | 'memfd' | 'anonymous';
export type Mode = 'post-copy' | 'eager';

export type TierChoice =
  | {
      readonly kind: 'chosen';
      readonly tier: Tier;
      readonly mode: Mode;
      /** Why this mode, for people. */
      readonly reason: string;
      /** A missing page is noticed by userfaultfd. */
      readonly trapped: boolean;
    }
  /** Post-copy was asked for and this memory cannot be trapped: `missing` names what would be needed. */
  | { readonly kind: 'not-trappable'; readonly message: string; readonly missing: readonly string[] }
  | { readonly kind: 'unsupported'; readonly message: string };

/** What was found out about what came over, beside what the VMM says of it. */
export interface SeenMemory {
  /** The memory file takes a write(). */
  readonly writable: boolean;
}

const WRITE = 'write() to a guest_memfd';
const UFFD = 'a userfaultfd that is registered for missing pages';
const BITMAP = 'a bitmap';
const GUEST_MEMFD_NEEDS: readonly string[] = [
  'userfaultfd registration of a guest_memfd mapping',
  WRITE,
  'KVM userfault exits for stage-2 faults',
];

/** @param asked undefined: whatever the memory allows */
export function chooseTier(offer: VmmOffer, asked: Mode | undefined, seen: SeenMemory): TierChoice {
  const has = (name: DescriptorName): boolean => offer.descriptors.includes(name);
  const { guestWaits } = DIALECTS[offer.dialect];
  if (!guestWaits && asked === 'eager')
    return unsupported(
      'eager was asked for, but a Firecracker VMM does not wait for its memory: only post-copy is possible',
    );
  if (offer.minor && !offer.missing)
    return unsupported(
      'the ranges are registered for minor faults alone: a missing page would go unnoticed; register missing too',
    );
  // Whose guest runs from the handshake on has asked for post-copy by that.
  const wanted = guestWaits ? asked : 'post-copy';
  const trapped = has('uffd') && offer.missing;
  const given: Given = { wanted, asked, trapped, bitmap: has('bitmap'), writable: seen.writable };
  if (has('guest_memfd')) return chooseForGuestMemfd(given);
  return has('memfd') ? chooseForMemfd(given) : chooseForAnonymous(given);
}

interface Given {
  readonly wanted: Mode | undefined;
  /** The same, but for what a dialect leaves no choice in. */
  readonly asked: Mode | undefined;
  /** A missing page is noticed by userfaultfd. */
  readonly trapped: boolean;
  readonly bitmap: boolean;
  readonly writable: boolean;
}

function chooseForGuestMemfd({ wanted, asked, trapped, bitmap, writable }: Given): TierChoice {
  if (trapped && bitmap && writable)
    return {
      kind: 'chosen',
      tier: 'guest-memfd-full',
      mode: wanted ?? 'post-copy',
      reason: asked
        ? AS_ASKED
        : 'missing and minor pages are trapped by userfaultfd, and stage-2 faults exit by the bitmap',
      trapped,
    };
  // One of them alone: its vCPUs would read zeros (no bitmap), its threads would (no userfaultfd), or nobody could fill a page for a vCPU.
  const partly = trapped || bitmap;
  const missing = partly
    ? [...(trapped ? [] : [UFFD]), ...(bitmap ? [] : [BITMAP]), ...(writable ? [] : [WRITE])]
    : GUEST_MEMFD_NEEDS;
  if (wanted === 'post-copy') return notTrappable('this guest_memfd cannot be trapped', missing);
  return {
    kind: 'chosen',
    tier: 'guest-memfd-eager',
    mode: 'eager',
    reason: `this guest_memfd cannot be trapped (missing here: ${missing.join('; ')}), so every page is there before the vCPUs run`,
    trapped,
  };
}

function chooseForMemfd({ wanted, asked, trapped, bitmap }: Given): TierChoice {
  const mode = wanted ?? 'post-copy';
  if (trapped && bitmap)
    return {
      kind: 'chosen',
      tier: 'memfd-userfault',
      mode,
      reason: asked
        ? AS_ASKED
        : 'stage-2 faults exit by the bitmap, and other missing pages are trapped by userfaultfd',
      trapped,
    };
  if (trapped) return { kind: 'chosen', tier: 'memfd', mode, reason: asked ? AS_ASKED : TRAPPED, trapped };
  // The VMM's own threads, KVM's own accesses, and a vCPU whose page is given back as it faults go by no bitmap: they would read zeros.
  if (wanted === 'post-copy')
    return notTrappable(
      bitmap
        ? 'a bitmap alone does not trap memory that is not guest_memfd'
        : 'no userfaultfd that is registered for missing pages came over',
      [UFFD],
    );
  return {
    kind: 'chosen',
    tier: 'memfd',
    mode: 'eager',
    reason: 'no userfaultfd came over, so nothing can be trapped',
    trapped,
  };
}

function chooseForAnonymous({ wanted, asked, trapped }: Given): TierChoice {
  if (!trapped)
    return unsupported(
      'neither a memory file nor a userfaultfd registered for missing pages came over: there is no way into the memory',
    );
  return {
    kind: 'chosen',
    tier: 'anonymous',
    mode: wanted ?? 'post-copy',
    reason: asked ? AS_ASKED : TRAPPED,
    trapped,
  };
}

const AS_ASKED = 'as asked for';
const TRAPPED = 'missing pages are trapped by userfaultfd';

const unsupported = (message: string): TierChoice => ({ kind: 'unsupported', message });

function notTrappable(why: string, missing: readonly string[]): TierChoice {
  return {
    kind: 'not-trappable',
    message: `post-copy is not possible: ${why}. Missing: ${missing.join('; ')}. Eager migration is possible`,
    missing,
  };
}

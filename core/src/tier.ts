/** Which way a VM's memory can be filled, and whether its guest may run meanwhile. Decided once a VM, and said aloud. */
import { DIALECTS } from './dialects/dialect.ts';
import type { VmmOffer } from './offer.ts';

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

const GUEST_MEMFD_NEEDS: readonly string[] = [
  'userfaultfd registration of a guest_memfd mapping',
  'write() to a guest_memfd',
  'KVM userfault exits for stage-2 faults',
];

/** @param wanted undefined: whatever the memory allows */
export function chooseTier(offer: VmmOffer, wanted: Mode | undefined): TierChoice {
  const has = (name: (typeof offer.descriptors)[number]): boolean => offer.descriptors.includes(name);
  if (!DIALECTS[offer.dialect].guestWaits && wanted === 'eager')
    return {
      kind: 'unsupported',
      message: 'eager was asked for, but a Firecracker VMM does not wait for its memory: only post-copy is possible',
    };
  if (offer.minor && !offer.missing)
    return {
      kind: 'unsupported',
      message:
        'the ranges are registered for minor faults alone: a missing page would go unnoticed; register missing too',
    };
  if (has('guest_memfd')) return chooseForGuestMemfd(offer, wanted);
  const trapped = has('uffd') && offer.missing;
  const tier: Tier = has('memfd') ? 'memfd' : 'anonymous';
  if (trapped) {
    const mode = wanted ?? 'post-copy';
    const reason = wanted ? 'as asked for' : 'missing pages are trapped by userfaultfd';
    return { kind: 'chosen', tier, mode, reason, trapped };
  }
  if (tier === 'anonymous')
    return {
      kind: 'unsupported',
      message:
        'neither a memory file nor a userfaultfd registered for missing pages came over: there is no way into the memory',
    };
  if (wanted === 'post-copy')
    return notTrappable('no userfaultfd that is registered for missing pages came over', ['a userfaultfd']);
  return {
    kind: 'chosen',
    tier,
    mode: 'eager',
    reason: 'no userfaultfd came over, so nothing can be trapped',
    trapped,
  };
}

function chooseForGuestMemfd(offer: VmmOffer, wanted: Mode | undefined): TierChoice {
  if (offer.missing)
    return {
      kind: 'unsupported',
      message:
        'a guest_memfd that is registered with a userfaultfd is not supported yet; hand over the guest_memfd alone to have it filled eagerly',
    };
  if (wanted === 'post-copy') return notTrappable('this guest_memfd cannot be trapped', GUEST_MEMFD_NEEDS);
  return {
    kind: 'chosen',
    tier: 'guest-memfd-eager',
    mode: 'eager',
    reason: `this guest_memfd cannot be trapped (missing here: ${GUEST_MEMFD_NEEDS.join('; ')}), so every page is there before the vCPUs run`,
    trapped: false,
  };
}

function notTrappable(why: string, missing: readonly string[]): TierChoice {
  return {
    kind: 'not-trappable',
    message: `post-copy is not possible: ${why}. Missing: ${missing.join('; ')}. Eager migration is possible`,
    missing,
  };
}

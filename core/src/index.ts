/** What loads no package, and so may be loaded by every thread: a migration has two, each with code of its own. What a VMM says is read in messages.ts. */
export type * from './channel.ts';
export * from './dialects/dialect.ts';
export * from './fault-window.ts';
export * from './frame.ts';
export * from './layout.ts';
export type * from './offer.ts';
export * from './pacing.ts';
export * from './phase.ts';
export * from './policy.ts';
export * from './prefetch.ts';
export * from './region-order.ts';
export * from './sparse.ts';
export * from './tier.ts';

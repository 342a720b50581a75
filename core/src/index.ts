export * from './channel.ts';
export * from './frame.ts';
export * from './handshake.ts';
export * from './layout.ts';
export * from './phase.ts';
export * from './policy.ts';
export * from './prefetch.ts';
export * from './tier.ts';

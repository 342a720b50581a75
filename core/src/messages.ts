/** What a VMM says, read and checked: for the main thread. */
export * from './channel.ts';
export { endOfJson, HandshakeError } from './checked.ts';
export { codecFor, type VmmCodec } from './dialects/codec.ts';
export * from './handshake.ts';
export type * from './offer.ts';

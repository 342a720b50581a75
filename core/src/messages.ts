/** What a VMM says, read and checked: for the main thread. */
export * from './channel.ts';
export { endOfJson, HandshakeError } from './checked.ts';
export * from './handshake.ts';
export type * from './offer.ts';

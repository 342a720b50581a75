/** What a VMM says, read and checked: for the main thread. */
export * from './channel.ts';
export * from './handshake.ts';

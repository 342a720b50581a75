/** The part of the kit that a lane’s thread needs: nothing here loads a package, as every thread loads its own code. */
export * from './address.ts';
export * from './bare-client.ts';
export * from './bare-server.ts';
export * from './clock.ts';
export * from './errors.ts';
export * from './link-security.ts';
export * from './message-reader.ts';
export * from './random-ids.ts';
export * from './spin.ts';
export * from './straight-writer.ts';
export * from './tls.ts';

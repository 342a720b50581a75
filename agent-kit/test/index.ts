/** For tests of the agents only: certificates, and clients that know nothing of our generated code. */
export * from './certificates.ts';
export * from './generic-clients.ts';
export * from './loopback.ts';

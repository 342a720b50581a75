export * from './address.ts';
export * from './credentials.ts';
export * from './errors.ts';
export * from './server.ts';
export * from './tls.ts';

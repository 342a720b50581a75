import { isIP, isIPv4 } from 'node:net';
import { UserError } from './errors.ts';

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Reads `host:port` or `[v6]:port`; `what` names the option or value in the error. */
export function parseAddress(text: string, what: string): HostPort {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || !(port <= 65535)) {
    throw new UserError(`${what}: "${text}" is not an address; give host:port or [ipv6]:port, port 0 to 65535`, 2);
  }
  return { host, port };
}

export function formatAddress({ host, port }: HostPort): string {
  return host.includes(':') ? `[${host}]:${String(port)}` : `${host}:${String(port)}`;
}

/**
 * Only what is loopback without asking a resolver: another name may answer differently tomorrow, and plaintext must not
 * depend on that.
 */
export function isLoopback(host: string): boolean {
  if (host === 'localhost') return true;
  if (isIPv4(host)) return host.startsWith('127.');
  return isIP(host) === 6 && /^(0{0,4}:){2,7}0{0,3}1$/.test(host);
}

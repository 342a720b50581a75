/**
 * A network for the guest beside the hosts' own: a bridge with a tap on each host, joined by a veth pair of its own, and a third place that
 * talks to the guest. A connection from there goes on where the guest goes.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import type { Host, Hosts } from './hosts.ts';

export interface GuestNet {
  /** Names of the tap devices, each in its host's namespace. */
  readonly taps: { readonly source: string; readonly destination: string };
  /** ADDRESS/BITS that the guest takes. */
  readonly guest: string;
  readonly guestAddress: string;
  /** Neither host: where the guest's peer runs. */
  readonly client: Host;
  close(): void;
}

/** TEST-NET-2 (RFC 5737). */
const GUEST_ADDRESS = '198.51.100.2';
const CLIENT_ADDRESS = '198.51.100.1';
const BITS = 24;
const TAP = 'tap0';
const BRIDGE = 'br0';

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

function namespaceOf(host: Host): string {
  const name = host.prefix.at(-1);
  if (name === undefined) throw new Error('the guest’s network needs hosts in network namespaces');
  return name;
}

let nets = 0;

/** Everything in the hosts' namespaces goes with them; `close` removes the client's. */
export function makeGuestNet(hosts: Hosts): GuestNet {
  const source = namespaceOf(hosts.source);
  const destination = namespaceOf(hosts.destination);
  const client = `pw${process.pid}-${nets++}-cli`;
  const close = (): void => void spawnSync('ip', ['netns', 'del', client]);
  try {
    ip('netns', 'add', client);
    for (const host of [source, destination]) {
      ip('-n', host, 'link', 'add', BRIDGE, 'type', 'bridge', 'forward_delay', '0');
      ip('-n', host, 'tuntap', 'add', 'dev', TAP, 'mode', 'tap');
      ip('-n', host, 'link', 'set', TAP, 'master', BRIDGE);
    }
    const pair = ['type', 'veth', 'peer', 'name'];
    ip('link', 'add', 'gnet', 'netns', source, ...pair, 'gnet', 'netns', destination);
    ip('link', 'add', 'gclient', 'netns', source, ...pair, 'eth0', 'netns', client);
    ip('-n', source, 'link', 'set', 'gclient', 'master', BRIDGE);
    for (const host of [source, destination]) ip('-n', host, 'link', 'set', 'gnet', 'master', BRIDGE);
    for (const device of ['gnet', TAP, BRIDGE])
      for (const host of [source, destination]) ip('-n', host, 'link', 'set', device, 'up');
    ip('-n', source, 'link', 'set', 'gclient', 'up');
    ip('-n', client, 'addr', 'add', `${CLIENT_ADDRESS}/${BITS}`, 'dev', 'eth0');
    ip('-n', client, 'link', 'set', 'eth0', 'up');
  } catch (error) {
    close();
    throw error;
  }
  return {
    taps: { source: TAP, destination: TAP },
    guest: `${GUEST_ADDRESS}/${BITS}`,
    guestAddress: GUEST_ADDRESS,
    client: { name: 'client', address: CLIENT_ADDRESS, prefix: ['ip', 'netns', 'exec', client] },
    close,
  };
}

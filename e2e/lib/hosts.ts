/**
 * Two hosts: network namespaces joined by a veth pair where this machine allows it, else loopback. Everything that is made here is removed
 * by `close`, and nothing outside of it is touched.
 */
import { execFileSync, spawnSync } from 'node:child_process';

export interface Host {
  readonly name: string;
  readonly address: string;
  /** What goes before a command line to run it on this host. */
  readonly prefix: readonly string[];
}

export interface Hosts {
  readonly kind: 'network namespaces' | 'loopback';
  /** Why it is loopback, where it is. */
  readonly reason: string;
  readonly source: Host;
  readonly destination: Host;
  /** Bytes that the source's side of the link has sent and received, by the kernel's count; undefined on loopback. */
  wireBytes(): { readonly sent: number; readonly received: number } | undefined;
  /** Takes the link down, as a pulled cable does. */
  setLink(up: boolean): void;
  /** Makes the link as slow as one of so many Mbit/s, both ways, by a token bucket. */
  limitLink(mbitPerS: number): void;
  /** Has the source's host drop all that comes for these TCP ports, as a firewall does. Throws where it has no iptables. */
  dropPorts(ports: readonly number[]): void;
  close(): void;
}

const LOOPBACK: Omit<Host, 'name'> = { address: '127.0.0.1', prefix: [] };
/** TEST-NET-1 (RFC 5737): belongs to nobody. Namespaces are separate, so every pair may have the same. */
const ADDRESSES = { source: '192.0.2.1', destination: '192.0.2.2' } as const;

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Why namespaces cannot be had here, or undefined. Found by making one. */
export function whyNoNamespaces(): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces need root';
  const name = `pw-probe-${process.pid}`;
  const made = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8' });
  if (made.error) return 'the program ip is missing (Debian: iproute2)';
  if (made.status !== 0) return `ip netns add: ${made.stderr.trim()}`;
  spawnSync('ip', ['netns', 'del', name]);
  return undefined;
}

let pairs = 0;

/** @param wanted 'loopback' to have it where namespaces could be had as well */
export function makeHosts(wanted: 'best' | 'loopback' = 'best'): Hosts {
  const reason = wanted === 'loopback' ? 'as asked for' : whyNoNamespaces();
  if (reason !== undefined) return loopbackHosts(reason);
  const id = `pw${process.pid}-${pairs++}`;
  const names = { source: `${id}-src`, destination: `${id}-dst` };
  const veth = { source: `${id}s`.slice(-15), destination: `${id}d`.slice(-15) };
  const close = (): void => {
    for (const name of Object.values(names)) spawnSync('ip', ['netns', 'del', name]);
  };
  try {
    for (const name of Object.values(names)) ip('netns', 'add', name);
    ip(
      'link',
      'add',
      veth.source,
      'netns',
      names.source,
      'type',
      'veth',
      'peer',
      'name',
      veth.destination,
      'netns',
      names.destination,
    );
    for (const side of ['source', 'destination'] as const) {
      ip('-n', names[side], 'addr', 'add', `${ADDRESSES[side]}/30`, 'dev', veth[side]);
      ip('-n', names[side], 'link', 'set', veth[side], 'up');
      ip('-n', names[side], 'link', 'set', 'lo', 'up');
    }
  } catch (error) {
    close();
    throw error;
  }
  const host = (side: 'source' | 'destination'): Host => ({
    name: side,
    address: ADDRESSES[side],
    prefix: ['ip', 'netns', 'exec', names[side]],
  });
  return {
    kind: 'network namespaces',
    reason: '',
    source: host('source'),
    destination: host('destination'),
    wireBytes: () => linkBytes(names.source, veth.source),
    setLink: (up) => void ip('-n', names.source, 'link', 'set', veth.source, up ? 'up' : 'down'),
    limitLink: (mbitPerS) => {
      for (const side of ['source', 'destination'] as const) limit(names[side], veth[side], mbitPerS);
    },
    dropPorts: (ports) => {
      const multiport = ['-m', 'multiport', '--dports', ports.join(',')];
      execFileSync(
        'ip',
        ['netns', 'exec', names.source, 'iptables', ...['-A', 'INPUT', '-p', 'tcp', ...multiport, '-j', 'DROP']],
        {
          stdio: ['ignore', 'ignore', 'pipe'],
        },
      );
    },
    close,
  };
}

function loopbackHosts(reason: string): Hosts {
  return {
    kind: 'loopback',
    reason,
    source: { name: 'source', ...LOOPBACK },
    destination: { name: 'destination', ...LOOPBACK },
    wireBytes: () => undefined,
    setLink: () => {
      throw new Error('loopback cannot be taken down; network namespaces are needed');
    },
    limitLink: () => {
      throw new Error('loopback is not made slower; network namespaces are needed');
    },
    dropPorts: () => {
      throw new Error('loopback gets no firewall; network namespaces are needed');
    },
    close: () => undefined,
  };
}

/** A bucket of one millisecond at most at 1 Gbit/s, and a queue of 50 ms: what does not fit is dropped, as by a switch. */
function limit(namespace: string, device: string, mbitPerS: number): void {
  const args = ['qdisc', 'replace', 'dev', device, 'root', 'tbf', 'rate', `${mbitPerS}mbit`, 'burst', '128kb'];
  execFileSync('tc', ['-n', namespace, ...args, 'latency', '50ms'], { stdio: ['ignore', 'ignore', 'pipe'] });
}

interface LinkStatistics {
  readonly stats64?: { readonly rx?: { readonly bytes: number }; readonly tx?: { readonly bytes: number } };
}

function linkBytes(namespace: string, device: string): { sent: number; received: number } {
  const [link] = JSON.parse(ip('-n', namespace, '-s', '-j', 'link', 'show', device)) as LinkStatistics[];
  return { sent: link?.stats64?.tx?.bytes ?? 0, received: link?.stats64?.rx?.bytes ?? 0 };
}

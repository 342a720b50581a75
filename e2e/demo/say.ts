/** The lines that both demos have. */
import type { Hosts } from '../lib/hosts.ts';

export function say(text: string): void {
  if (text !== '') process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

export const hostsLine = (hosts: Hosts): string =>
  `hosts: two ${hosts.kind === 'loopback' ? `on loopback (${hosts.reason})` : 'network namespaces joined by a veth pair'}`;

/** @returns `wrong` */
export function verdict(wrong: number, what = 'WRONG PAGES'): number {
  say(wrong === 0 ? '\nThe guest runs on the destination; no page was lost or wrong.' : `\n${wrong} ${what}`);
  return wrong;
}

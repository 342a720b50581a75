/** Where a QEMU listens for QMP: `unix:PATH` or `tcp:HOST:PORT`. */
import { isLoopback, parseAddress, UserError } from '@pagewake/agent-kit';

export type QmpAddress =
  | { readonly kind: 'unix'; readonly path: string; readonly text: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number; readonly text: string };

/** Throws UserError that names `flag`. */
export function parseQmpAddress(text: string, flag: string): QmpAddress {
  const path = /^unix:(.+)$/.exec(text)?.[1];
  if (path !== undefined) return { kind: 'unix', path, text };
  const rest = /^tcp:(.+)$/.exec(text)?.[1];
  if (rest !== undefined) return { kind: 'tcp', ...parseAddress(rest, flag), text };
  throw new UserError(`${flag}: "${text}" is not a QMP address; give unix:PATH or tcp:HOST:PORT`, 2);
}

/** Whoever listens there runs under our own kernel, and shares its clock. */
export const isLocal = (address: QmpAddress): boolean => address.kind === 'unix' || isLoopback(address.host);

/** A dialect once its handshake's JSON is read: what else opens it, and how the messages of both sides are written. */
import type { AgentMessage, VmmMessage } from '../channel.ts';
import type { VmmOffer } from '../offer.ts';
import { OwnCodec } from './own.ts';
import { SecretFreeCodec } from './secret-free.ts';

export interface Heard {
  readonly messages: readonly VmmMessage[];
  /** To be said at once, as it is. */
  readonly answer: string;
}

export interface VmmCodec {
  /**
   * How much of a text, which follows the JSON of the handshake, belongs to the handshake too. Undefined: that is not whole yet.
   * @throws HandshakeError where it is not what follows there
   */
  opening(text: string): number | undefined;
  /**
   * What the VMM says after its handshake, in pieces of any size.
   * @throws HandshakeError that says what is wrong with it
   */
  read(text: string): Heard;
  /** A message as this VMM understands it; empty: it has no word for it. */
  write(message: AgentMessage): string;
  /** It has no word for the end, and may still ask for pages that are there by now: that is answered. */
  readonly answersLate: boolean;
}

/** Says nothing after its handshake, and is told nothing; what it may say one day is not for us. */
const SILENT: VmmCodec = {
  opening: () => 0,
  read: () => ({ messages: [], answer: '' }),
  write: () => '',
  answersLate: false,
};

export function codecFor({ dialect, layout }: VmmOffer): VmmCodec {
  switch (dialect) {
    case 'pagewake/1':
      return new OwnCodec();
    case 'firecracker':
      return SILENT;
    case 'firecracker-secret-free':
      return new SecretFreeCodec(layout);
  }
}

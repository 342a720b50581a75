/** `pagewake/1`: one JSON object a line, both ways. */
import { LineSplitter, MAX_BATCH, parseVmmMessage, type AgentMessage, type ResolvedPage } from '../channel.ts';
import type { Heard, VmmCodec } from './codec.ts';

/** A batch of faults, each with its traceparent, is under 200 KiB. */
const MAX_LINE_BYTES = 256 * 1024;

export class OwnCodec implements VmmCodec {
  readonly answersLate = false;
  readonly #lines = new LineSplitter(MAX_LINE_BYTES);
  /** It has asked for several at a time, so it understands as many answers in one. */
  #batches = false;

  opening(): number {
    return 0;
  }

  read(text: string): Heard {
    const messages = this.#lines.push(text).map((line) => parseVmmMessage(line));
    this.#batches ||= messages.some(({ type }) => type === 'stage2_faults');
    return { messages, answer: '' };
  }

  write(message: AgentMessage): string {
    if (message.type !== 'all_resolved') return line(message);
    return this.#batches
      ? chunks(message.pages)
          .map((pages) => line({ type: 'all_resolved', pages }))
          .join('')
      : message.pages.map((page) => line({ type: 'resolved', ...page })).join('');
  }
}

const line = (message: AgentMessage): string => `${JSON.stringify(message)}\n`;

function chunks(pages: readonly ResolvedPage[]): (readonly ResolvedPage[])[] {
  const all: (readonly ResolvedPage[])[] = [];
  for (let at = 0; at < pages.length; at += MAX_BATCH) all.push(pages.slice(at, at + MAX_BATCH));
  return all;
}

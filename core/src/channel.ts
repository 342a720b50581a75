/** The messages that follow a `pagewake/1` handshake: one JSON object a line, both ways (docs/protocol.md). */
import { z } from 'zod';
import { HandshakeError } from './checked.ts';

/** More come in several messages. */
export const MAX_BATCH = 1024;

const offsetBytes = z.int().nonnegative();

const fault = {
  id: z.int().nonnegative(),
  vcpu: z.int().nonnegative(),
  /** Either names the page; where both do they agree. */
  offset: offsetBytes.optional(),
  gpa: offsetBytes.optional(),
  flags: z.int().nonnegative().default(0),
  traceparent: z.string().optional(),
};

const isNamed = (f: { readonly offset?: number | undefined; readonly gpa?: number | undefined }): boolean =>
  f.offset !== undefined || f.gpa !== undefined;
const UNNAMED = 'neither offset nor gpa names the page';

const vmmMessage = z.discriminatedUnion('type', [
  z.object({ type: z.literal('stage2_fault'), ...fault }).refine(isNamed, UNNAMED),
  z.object({
    type: z.literal('stage2_faults'),
    faults: z.array(z.object(fault).refine(isNamed, UNNAMED)).min(1).max(MAX_BATCH),
  }),
  z.object({ type: z.literal('removed'), offset: offsetBytes, len: z.int().positive() }),
]);

export type VmmMessage = z.output<typeof vmmMessage>;
export type Stage2Fault = Extract<VmmMessage, { type: 'stage2_faults' }>['faults'][number];

/** A stage-2 fault's page is in place. */
export interface ResolvedPage {
  readonly id: number;
  readonly offset: number;
  readonly len: number;
}

export type AgentMessage =
  /** The memory is taken and its source is opened, but the source's VM still runs: faults wait. */
  | { readonly type: 'held' }
  | { readonly type: 'ready' }
  | ({ readonly type: 'resolved' } & ResolvedPage)
  /** To a VMM that asks for several at a time. */
  | { readonly type: 'all_resolved'; readonly pages: readonly ResolvedPage[] }
  /** The answer to the VMM's own: from here on the range reads as zeros, whatever was on its way. */
  | { readonly type: 'removed'; readonly offset: number; readonly len: number }
  | { readonly type: 'done' }
  | {
      readonly type: 'failed';
      readonly reason: string;
      readonly message: string;
      /** Nothing was delivered and no guest ran: the same memory may be handed over to another migration. */
      readonly again?: true;
    };

/** @throws HandshakeError that says what is wrong with the line */
export function parseVmmMessage(line: string): VmmMessage {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new HandshakeError(`a message on the VMM channel is not JSON: ${JSON.stringify(line.slice(0, 60))}`);
  }
  const result = vmmMessage.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue?.path.length ? `${issue.path.join('.')}: ` : '';
  throw new HandshakeError(`a message on the VMM channel: ${path}${issue?.message ?? 'not known'}`);
}

/**
 * Cuts a byte stream into lines. A line longer than the limit is an error rather than a buffer that grows for ever.
 */
export class LineSplitter {
  readonly #maxBytes: number;
  #rest = '';

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** @throws HandshakeError where a line does not end in time */
  push(text: string): string[] {
    const parts = (this.#rest + text).split('\n');
    this.#rest = parts.pop() ?? '';
    if ([...parts, this.#rest].some((line) => line.length > this.#maxBytes))
      throw new HandshakeError(`a line is longer than ${this.#maxBytes} bytes`);
    return parts.filter((line) => line.trim() !== '');
  }
}

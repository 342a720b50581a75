/** Links to agents: one channel each, calls with a time limit, and errors that name the agent they came from. */
import { status, type Client } from '@grpc/grpc-js';
import {
  ErrorReason,
  fromServiceError,
  isUnreachable,
  openChannel,
  PagewakeError,
  type ClientLinkOptions,
} from '@pagewake/agent-kit';
import {
  createClient,
  MigrationService,
  SourceService,
  type AnyService,
  type CallOptions,
  type ServiceClient,
} from '@pagewake/proto';
import { cancelledByCaller } from './errors.ts';
import { linkTrouble } from './link-trouble.ts';

export interface AgentOptions extends ClientLinkOptions {
  /** host:port or [ipv6]:port, as seen from here. */
  readonly address: string;
}

export interface CallLimits {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Enough for a call that is answered from memory, over a slow link. */
const DEFAULT_TIMEOUT_MS = 10_000;

export type SourceAgent = Agent<typeof SourceService>;
export type DestinationAgent = Agent<typeof MigrationService>;

export class Agent<S extends AnyService> {
  readonly address: string;
  readonly client: ServiceClient<S>;
  readonly #channel: Client;
  readonly #whose: string;
  readonly #unreachable: ErrorReason;
  readonly #link: ClientLinkOptions;

  /** Does not connect yet. Throws UserError where address or TLS options are no good. */
  constructor(service: S, whose: string, unreachable: ErrorReason, options: AgentOptions) {
    this.address = options.address;
    this.#whose = whose;
    this.#unreachable = unreachable;
    this.#link = options;
    this.#channel = openChannel(options.address, options);
    this.client = createClient(service, this.#channel);
  }

  /** One unary call. Rejects with a PagewakeError. */
  async call<T>(
    make: (client: ServiceClient<S>, options: CallOptions) => Promise<T>,
    limits: CallLimits = {},
  ): Promise<T> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = limits;
    if (signal?.aborted === true) throw cancelledByCaller();
    try {
      return await make(this.client, { timeoutMs, ...(signal === undefined ? {} : { signal }) });
    } catch (error) {
      throw this.explain(error, signal);
    }
  }

  /** What a failed call means, in words that name the agent. */
  explain(error: unknown, signal?: AbortSignal): PagewakeError {
    if (signal?.aborted === true) return cancelledByCaller();
    const typed = fromServiceError(error);
    const who = `the ${this.#whose} at ${this.address}`;
    const explained = (reason: ErrorReason, message: string): PagewakeError =>
      new PagewakeError(reason, message, typed.metadata, { cause: typed, code: typed.code });
    if (typed.reason !== ErrorReason.UNSPECIFIED) return explained(typed.reason, typed.message);
    if (typed.code === status.UNIMPLEMENTED) {
      return explained(typed.reason, `${who} has no such service: is it the ${this.#whose}, and of this version?`);
    }
    // grpc-js ends some of its messages with a heading and nothing under it.
    const detail = typed.message.replace(/\s*Resolution note:\s*$/, '');
    if (isUnreachable(typed)) {
      const trouble = linkTrouble(detail, this.#link);
      return explained(
        this.#unreachable,
        trouble === undefined
          ? `${who} does not answer (${detail}); is it running, and reachable from here?`
          : `${who} does not answer: ${trouble} (${detail})`,
      );
    }
    return explained(typed.reason, `${who} failed: ${detail}`);
  }

  /** There is, or seemed to be, a connection, and nothing comes over it. */
  silentFor(ms: number): PagewakeError {
    const message = `the ${this.#whose} at ${this.address} does not answer: nothing came from it for ${String(ms / 1000)} s; is it running, or stopped?`;
    return new PagewakeError(this.#unreachable, message);
  }

  close(): void {
    this.#channel.close();
  }
}

export function connectSource(options: AgentOptions): SourceAgent {
  return new Agent(SourceService, 'source agent', ErrorReason.SOURCE_UNREACHABLE, options);
}

/** The contract has no reason of its own for this one: an agent never has to say that it cannot reach the destination. */
export function connectDestination(options: AgentOptions): DestinationAgent {
  return new Agent(MigrationService, 'destination agent', ErrorReason.UNSPECIFIED, options);
}

/** A VMM's control socket as testvmm speaks it: a command a line, one JSON line back. Every command has a connection of its own. */
import { connect, type Socket } from 'node:net';
import { messageOf, UserError } from '@pagewake/agent-kit';

export type Reply = Readonly<Record<string, unknown>>;

/** A reply that is larger than this is none. */
const MAX_REPLY_BYTES = 1 << 20;

/** The VMM answered, and said no. */
export class RefusedCommand extends UserError {
  override readonly name = 'RefusedCommand';
}

/** Nobody listens there, so the command was never sent. */
export class UnreachableVmm extends UserError {
  override readonly name = 'UnreachableVmm';
}

export interface CommandOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export class ControlSocket {
  readonly path: string;
  readonly #whose: string;

  /** `whose`: for errors, "source VMM". */
  constructor(path: string, whose: string) {
    this.path = path;
    this.#whose = whose;
  }

  /** Throws UnreachableVmm, RefusedCommand; a UserError where the VMM took the command and did not answer. */
  async command(words: readonly string[], { timeoutMs, signal }: CommandOptions): Promise<Reply> {
    const split = words.find((word) => word === '' || /\s/.test(word));
    if (split !== undefined) {
      throw new UserError(
        `${JSON.stringify(split)} cannot be given to the ${this.#whose}: paths must have no white space`,
      );
    }
    const socket = await this.#connect();
    try {
      return this.#accept(words, await this.#exchange(socket, words, timeoutMs, signal));
    } finally {
      socket.destroy();
    }
  }

  async #connect(): Promise<Socket> {
    const socket = connect(this.path);
    try {
      await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    } catch (error) {
      socket.destroy();
      throw new UnreachableVmm(
        `the ${this.#whose} does not answer at ${this.path}: ${messageOf(error)}; is it running with this control socket?`,
        1,
        { cause: error },
      );
    }
    return socket;
  }

  #exchange(
    socket: Socket,
    words: readonly string[],
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<string> {
    const asked = `\`${words[0] ?? ''}\``;
    return new Promise((resolve, reject) => {
      let text = '';
      const fail = (why: string): void => reject(new UserError(`the ${this.#whose} at ${this.path} ${why}`));
      const onAbort = (): void => fail(`was not waited for any longer: told to stop during ${asked}`);
      const timer = setTimeout(() => fail(`did not answer ${asked} in ${String(timeoutMs)} ms`), timeoutMs);
      const settled = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      socket.setEncoding('utf8');
      socket.on('data', (chunk: string) => {
        text += chunk;
        const end = text.indexOf('\n');
        if (end >= 0) resolve(text.slice(0, end));
        else if (text.length > MAX_REPLY_BYTES)
          fail(`answered ${asked} with more than ${String(MAX_REPLY_BYTES)} bytes`);
      });
      socket.on('error', (error) => fail(`broke off during ${asked}: ${messageOf(error)}`));
      socket.on('close', () => {
        settled();
        fail(`ended during ${asked}; what it printed last says why`);
      });
      if (signal?.aborted === true) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
      socket.write(`${words.join(' ')}\n`);
    });
  }

  #accept(words: readonly string[], line: string): Reply {
    let reply: unknown;
    try {
      reply = JSON.parse(line);
    } catch {
      reply = undefined;
    }
    if (typeof reply !== 'object' || reply === null || !('ok' in reply)) {
      throw new UserError(
        `the ${this.#whose} at ${this.path} answered \`${words[0] ?? ''}\` with ${JSON.stringify(line.slice(0, 100))}, not with {"ok":…}`,
      );
    }
    const fields = reply as Reply;
    if (fields['ok'] !== true) {
      const why = typeof fields['error'] === 'string' ? fields['error'] : 'it gave no reason';
      throw new RefusedCommand(`the ${this.#whose} refused \`${words.join(' ')}\`: ${why}`);
    }
    return fields;
  }
}

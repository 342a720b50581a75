/** A QMP connection: commands by id, events as they come. QEMU serves one connection a socket, so it is not kept longer than needed. */
import { connect, type Socket } from 'node:net';
import { messageOf } from '@pagewake/agent-kit';
import type { z } from 'zod';
import { cancelledByCaller } from '../errors.ts';
import type { QmpAddress } from './address.ts';
import { QmpClosed, QmpRefused, QmpSilent, QmpUnreachable } from './errors.ts';
import { EventLog } from './event-log.ts';
import {
  greetingSchema,
  parseJson,
  readMessage,
  type QemuVersion,
  type QmpEvent,
  type QmpMessage,
} from './messages.ts';

export interface CommandLimits {
  /** Default: 5000. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ConnectLimits extends CommandLimits {
  /** What to look at where it is not there, or no more: for errors. */
  readonly hint?: string | undefined;
}

interface Waiting {
  readonly command: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** QEMU answers from memory, unless its main loop is held up. */
const DEFAULT_TIMEOUT_MS = 5_000;
/** Longer than any reply that is looked at here. */
const MAX_LINE_BYTES = 16 << 20;

export class QmpClient {
  readonly address: QmpAddress;
  readonly version: QemuVersion;
  readonly #whose: string;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #log = new EventLog();
  #nextId = 1;
  #ended: QmpClosed | undefined;

  /** `whose`: for errors, "source QEMU". Rejects with QmpUnreachable. */
  static async connect(address: QmpAddress, whose: string, limits: ConnectLimits = {}): Promise<QmpClient> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal, hint } = limits;
    const more = hint === undefined ? '' : ` ${hint}`;
    if (signal?.aborted === true) throw cancelledByCaller();
    const socket =
      address.kind === 'unix' ? connect(address.path) : connect({ host: address.host, port: address.port });
    socket.setNoDelay(true);
    const lines = new LineReader(socket);
    const unreachable = (why: string): QmpUnreachable =>
      new QmpUnreachable(`the ${whose} does not answer at ${address.text}: ${why}`);
    let connected = false;
    try {
      const greeting = await new Promise<string>((resolve, reject) => {
        const silent = (): void =>
          reject(
            connected
              ? unreachable('no QMP greeting came; is another program connected to it? QEMU serves one at a time')
              : unreachable(`no connection in ${String(timeoutMs)} ms`),
          );
        const timer = setTimeout(silent, timeoutMs);
        const onAbort = (): void => reject(cancelledByCaller());
        signal?.addEventListener('abort', onAbort, { once: true });
        socket.once('connect', () => (connected = true));
        socket.once('error', (error) =>
          reject(unreachable(`${messageOf(error)}; is QEMU running with -qmp ${address.text},server=on?${more}`)),
        );
        socket.once('close', () => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', onAbort);
          reject(unreachable('it closed the connection'));
        });
        lines.onLine = (line) => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', onAbort);
          resolve(line);
        };
      });
      const parsed = greetingSchema.safeParse(parseJson(greeting));
      if (!parsed.success) throw unreachable(`${JSON.stringify(greeting.slice(0, 100))} is not a QMP greeting`);
      const client = new QmpClient({ address, whose, more }, socket, lines, parsed.data.QMP.version.qemu);
      await client.execute('qmp_capabilities', {}, undefined, limits);
      return client;
    } catch (error) {
      socket.on('error', () => undefined).destroy();
      throw error;
    }
  }

  private constructor(
    { address, whose, more }: { readonly address: QmpAddress; readonly whose: string; readonly more: string },
    socket: Socket,
    lines: LineReader,
    version: QemuVersion,
  ) {
    this.address = address;
    this.version = version;
    this.#whose = whose;
    this.#socket = socket;
    lines.onLine = (line) => this.#onLine(line);
    let why = '';
    socket.removeAllListeners('close');
    socket.on('error', (error) => (why = `: ${messageOf(error)}`));
    socket.on('close', () =>
      this.#end(new QmpClosed(`${this.who} closed its QMP connection${why}; has it ended?${more}`)),
    );
  }

  /** "the source QEMU at unix:/run/a.qmp" */
  get who(): string {
    return `the ${this.#whose} at ${this.address.text}`;
  }

  /** Undefined: the connection stands. */
  get ended(): QmpClosed | undefined {
    return this.#ended;
  }

  /** Rejects with QmpRefused, QmpSilent, QmpClosed, or CANCELLED. Without a schema what comes back is not looked at. */
  execute(command: string, args?: object, schema?: undefined, limits?: CommandLimits): Promise<void>;
  execute<T>(command: string, args: object, schema: z.ZodType<T>, limits?: CommandLimits): Promise<T>;
  async execute<T>(
    command: string,
    args: object = {},
    schema?: z.ZodType<T>,
    limits: CommandLimits = {},
  ): Promise<T | undefined> {
    const value = await this.#exchange(command, args, limits);
    if (schema === undefined) return undefined;
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    throw new QmpUnreachable(`${this.who} answered \`${command}\` with something else than QEMU does`);
  }

  /** From this moment on; ends when the connection does. Ask for them before the command whose effects are waited for. */
  events(): AsyncIterable<QmpEvent> {
    return this.#log.read();
  }

  /** Called with each event as it is read, so with nothing in between. @returns what ends it */
  listen(onEvent: (event: QmpEvent) => void, onEnd?: (error: QmpClosed) => void): () => void {
    return this.#log.listen(onEvent, () => {
      if (this.#ended !== undefined) onEnd?.(this.#ended);
    });
  }

  close(): void {
    this.#end(new QmpClosed(`the connection to ${this.who} was closed`));
    this.#socket.destroy();
  }

  #exchange(
    command: string,
    args: object,
    { timeoutMs = DEFAULT_TIMEOUT_MS, signal }: CommandLimits,
  ): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    if (signal?.aborted === true) return Promise.reject(cancelledByCaller());
    const id = this.#nextId++;
    return new Promise<unknown>((resolve, reject) => {
      const settled = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#waiting.delete(id);
      };
      const fail = (error: Error): void => {
        settled();
        reject(error);
      };
      const silent = (): void =>
        fail(new QmpSilent(`${this.who} did not answer \`${command}\` in ${String(timeoutMs)} ms`));
      const onAbort = (): void => fail(cancelledByCaller());
      const timer = setTimeout(silent, timeoutMs);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.set(id, {
        command,
        resolve: (value) => {
          settled();
          resolve(value);
        },
        reject: fail,
      });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  #onLine(line: string): void {
    const message = readMessage(line);
    if (message === undefined) {
      this.#socket.destroy(new Error(`${JSON.stringify(line.slice(0, 100))} is not QMP`));
    } else if (message.type === 'event') {
      this.#log.push(message.event);
    } else {
      this.#answer(message);
    }
  }

  #answer(message: Exclude<QmpMessage, { readonly type: 'event' }>): void {
    // An error without an id is about a line that QEMU could not read; only what was sent last can be meant.
    const id = message.id ?? Math.max(...this.#waiting.keys());
    const waiting = this.#waiting.get(id);
    // Nobody waits any more for what took too long.
    if (waiting === undefined) return;
    if (message.type === 'reply') waiting.resolve(message.value);
    else {
      const { errorClass, text } = message;
      waiting.reject(new QmpRefused(`${this.who} refused \`${waiting.command}\`: ${text}`, errorClass, text));
    }
  }

  #end(error: QmpClosed): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    for (const waiting of [...this.#waiting.values()]) waiting.reject(error);
    this.#log.end();
  }
}

/** Bytes to lines. */
class LineReader {
  onLine: (line: string) => void = () => undefined;
  #pieces: string[] = [];
  #bytes = 0;

  constructor(socket: Socket) {
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      let rest = chunk;
      for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
        const line = this.#pieces.join('') + rest.slice(0, end);
        this.#pieces = [];
        this.#bytes = 0;
        rest = rest.slice(end + 1);
        this.onLine(line.trimEnd());
      }
      if (rest === '') return;
      this.#pieces.push(rest);
      this.#bytes += rest.length;
      if (this.#bytes > MAX_LINE_BYTES)
        socket.destroy(new Error(`a line of more than ${String(MAX_LINE_BYTES)} bytes`));
    });
  }
}

/** QMP as the judge of a test speaks it: enough to look at a QEMU independently of the orchestrator's client. One command at a time. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { JsonLine } from './processes.ts';

const ANSWER_MS = 20_000;

export interface QmpEvent {
  readonly name: string;
  /** QEMU's own stamp, milliseconds of this machine's wall clock. */
  readonly atMs: number;
  readonly data: JsonLine;
}

interface Line {
  readonly event?: string;
  readonly timestamp?: { readonly seconds: number; readonly microseconds: number };
  readonly data?: JsonLine;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

interface Waiting {
  resolve(line: Line): void;
  reject(error: Error): void;
}

export class Qmp {
  readonly #socket: Socket;
  readonly #answers: Waiting[] = [];
  readonly #watchers = new Set<() => void>();
  readonly #events: QmpEvent[] = [];
  #closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    // Both tell of an error; `close` comes after either.
    createInterface({ input: socket })
      .on('line', (text) => this.#onLine(JSON.parse(text) as Line))
      .on('error', () => undefined);
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#closed = true;
      for (const waiting of this.#answers.splice(0)) waiting.reject(new Error('QEMU closed its QMP socket'));
      this.#tell();
    });
  }

  static async connect(path: string): Promise<Qmp> {
    const socket = connect(path);
    await once(socket, 'connect');
    const qmp = new Qmp(socket);
    await qmp.execute('qmp_capabilities');
    return qmp;
  }

  get events(): readonly QmpEvent[] {
    return this.#events;
  }

  /** @throws Error with QEMU's own words where it refuses */
  async execute(command: string, args: JsonLine = {}, timeoutMs = ANSWER_MS): Promise<unknown> {
    if (this.#closed) throw new Error(`${command}: QEMU closed its QMP socket`);
    const { promise, resolve, reject } = Promise.withResolvers<Line>();
    this.#answers.push({ resolve, reject });
    const timer = setTimeout(() => reject(new Error(`${command}: no answer within ${timeoutMs} ms`)), timeoutMs);
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const line = await promise.finally(() => clearTimeout(timer));
    if (line.error) throw new Error(`${command}: ${line.error.desc}`);
    return line.return;
  }

  /** The first event, past or to come, of this name that satisfies. */
  async waitFor(
    name: string,
    satisfies: (data: JsonLine) => boolean = () => true,
    timeoutMs = ANSWER_MS,
  ): Promise<QmpEvent> {
    const find = (): QmpEvent | undefined => this.#events.find((e) => e.name === name && satisfies(e.data));
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>();
    const look = (): void => {
      const found = find();
      if (found) resolve(found);
      else if (this.#closed) reject(new Error(`QEMU closed its QMP socket before ${name}`));
    };
    const timer = setTimeout(() => reject(new Error(`no ${name} within ${timeoutMs} ms`)), timeoutMs);
    this.#watchers.add(look);
    look();
    return promise.finally(() => {
      clearTimeout(timer);
      this.#watchers.delete(look);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #onLine(line: Line): void {
    if (line.event !== undefined) {
      const { seconds = 0, microseconds = 0 } = line.timestamp ?? {};
      this.#events.push({ name: line.event, atMs: seconds * 1000 + microseconds / 1000, data: line.data ?? {} });
      this.#tell();
    } else if ('return' in line || line.error) this.#answers.shift()?.resolve(line);
    // Anything else is the greeting.
  }

  #tell(): void {
    for (const look of this.#watchers) look();
  }
}

/**
 * The main thread's side of the bulk lane: the worker serves, here is decided who is served. A session, its end, a pause and a completion are known here
 * alone; the worker asks where it does not know.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { parseAddress, UserError, type Logger, type TlsFiles } from '@pagewake/agent-kit';
import type { VmRegistry } from '../../domain/registry.ts';
import type { Session } from '../../domain/session.ts';
import type { Compression } from '../grpc/bulk-lane.ts';
import { toTold } from '../last-word.ts';
import type { BulkStart, FromBulk, ToBulk } from './messages.ts';

export interface BulkOptions extends TlsFiles {
  /** Of the agent: bulk is served on the same address. */
  readonly listen: string;
  /** 0: the kernel chooses. */
  readonly bulkPort: number;
  readonly compression: Compression;
}

interface Attached {
  readonly session: Session;
  readonly detach: () => void;
}

/** How long its connections may take to end when the agent stops. */
const STOP_MS = 1000;

export class BulkHost {
  readonly #worker: Worker;
  readonly #registry: VmRegistry;
  readonly #log: Logger;
  readonly #attached = new Map<number, Attached>();
  #port: number;
  #stopping = false;

  private constructor(worker: Worker, port: number, registry: VmRegistry, log: Logger) {
    this.#worker = worker;
    this.#port = port;
    this.#registry = registry;
    this.#log = log;
    worker.on('message', (message: FromBulk) => this.#handle(message));
    worker.on('error', (error) => log.error({ err: error }, 'the bulk lane has crashed'));
    worker.on('exit', () => this.#exited());
  }

  /** Rejects with UserError where it cannot listen. */
  static async start(options: BulkOptions, registry: VmRegistry, log: Logger): Promise<BulkHost> {
    const { listen, bulkPort, compression, tlsCa, tlsCert, tlsKey } = options;
    const { host } = parseAddress(listen, '--listen');
    const start: BulkStart = { host, port: bulkPort, compression, tlsCa, tlsCert, tlsKey };
    const worker = new Worker(new URL('worker.ts', import.meta.url), {
      workerData: start,
      execArgv: [],
      name: 'bulk-worker',
    });
    const [first] = (await once(worker, 'message')) as [FromBulk];
    if (first.type === 'listening') return new BulkHost(worker, first.port, registry, log);
    await worker.terminate();
    const why = first.type === 'not-listening' ? first.code : 'it has crashed';
    throw new UserError(`cannot listen on ${host}:${bulkPort} for bulk: ${why}; give another --bulk-port`);
  }

  /** 0: bulk is served on the port of everything else. */
  get port(): number {
    return this.#port;
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    const timer = setTimeout(() => void this.#worker.terminate(), STOP_MS);
    const exited = once(this.#worker, 'exit');
    this.#post({ type: 'stop' });
    await exited;
    clearTimeout(timer);
  }

  #handle(message: FromBulk): void {
    switch (message.type) {
      case 'attach':
        this.#try(message.stream, () => this.#attach(message.stream, message.session));
        return;
      case 'check':
        this.#try(message.stream, () => this.#check(message.stream));
        return;
      case 'gone':
        this.#forget(message.stream);
        return;
      case 'bug':
        this.#log.error({ err: message.message }, 'internal error of the bulk lane');
        return;
      case 'listening':
      case 'not-listening':
        return;
    }
  }

  #attach(stream: number, id: Uint8Array): void {
    const session = this.#registry.session(id);
    if (session.ended !== undefined) throw session.ended;
    const { image, served } = session.vm;
    const detach = session.attach((why) => this.#end(stream, why));
    this.#attached.set(stream, { session, detach });
    this.#post({ type: 'attached', stream, image: image.share(), served: served.buffer });
  }

  #check(stream: number): void {
    const attached = this.#attached.get(stream);
    if (attached === undefined) return;
    const { session } = attached;
    if (session.ended !== undefined) throw session.ended;
    if (session.vm.state === 'completed') throw session.vm.completedError();
    if (session.vm.standstill === undefined) throw session.vm.notPausedError('nothing of it may be asked for yet');
    this.#post({ type: 'go', stream });
  }

  #try(stream: number, step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#end(stream, error);
    }
  }

  #end(stream: number, why: unknown): void {
    this.#forget(stream);
    const { reason, message, metadata } = toTold(why, (bug) => this.#log.error({ err: bug }, 'internal error'));
    this.#post({ type: 'end', stream, error: { reason, message, metadata } });
  }

  #forget(stream: number): void {
    this.#attached.get(stream)?.detach();
    this.#attached.delete(stream);
  }

  #post(message: ToBulk): void {
    this.#worker.postMessage(message);
  }

  #exited(): void {
    for (const stream of this.#attached.keys()) this.#forget(stream);
    if (this.#stopping) return;
    // Its destinations come again, and find bulk where everything else is.
    this.#port = 0;
    this.#log.error('the bulk lane has ended; bulk is served beside faults from here on');
  }
}

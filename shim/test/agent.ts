/** The destination agent's side of the channel, as little of it as shows what the library does. */
import { closeSync, fstatSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import {
  Uffd,
  UFFD_EVENT,
  UFFD_EVENT_BATCH,
  UFFD_EVENT_FIELDS,
  UnixListener,
  type UnixConnection,
} from '@pagewake/native';
import { HANG_MS, PAGE_BYTES, temporaryFolder, until } from './support.ts';

export interface HandedRegion {
  readonly name: string;
  readonly base_host_virt_addr: number;
  readonly size: number;
  readonly offset: number;
  readonly page_size: number;
  readonly file_offset: number;
  readonly fd: number;
}

export interface Handshake {
  readonly protocol: string;
  readonly vm?: string;
  readonly regions: readonly HandedRegion[];
  readonly fds: readonly string[];
  readonly registered: readonly string[];
  readonly content: string;
  readonly given_back?: readonly { readonly offset: number; readonly len: number }[];
}

export interface RemovedRange {
  readonly start: number;
  readonly end: number;
}

/** One connection of the library, after its handshake. */
export class Channel {
  readonly handshake: Handshake;
  readonly uffd: Uffd;
  readonly #connection: UnixConnection;
  readonly #descriptors: readonly number[];
  readonly faults = new Set<number>();
  readonly removed: RemovedRange[] = [];
  #closed = false;

  constructor(handshake: Handshake, descriptors: readonly number[], connection: UnixConnection) {
    const [uffd, ...files] = descriptors;
    if (uffd === undefined) throw new Error('no descriptor came with the handshake');
    this.handshake = handshake;
    this.uffd = Uffd.adopt(uffd);
    this.#descriptors = files;
    this.#connection = connection;
  }

  /** Device and inode of the descriptor that a region names. */
  fileOf(region: number): { readonly device: number; readonly inode: number } {
    const { dev, ino } = fstatSync(this.#descriptors[(this.handshake.regions[region]?.fd ?? 0) - 1] ?? -1);
    return { device: dev, inode: ino };
  }

  say(message: object): void {
    this.write(`${JSON.stringify(message)}\n`);
  }

  write(text: string): void {
    this.#connection.send(Buffer.from(text), []);
  }

  at(region: number, page: number): number {
    return (this.handshake.regions[region]?.base_host_virt_addr ?? 0) + page * PAGE_BYTES;
  }

  /** Notes who faults and what is given back, and resolves nothing. */
  watch(): this {
    const events = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
    this.uffd.poll(events, (count) => {
      for (let i = 0; i < count; i++) {
        const [type, address = 0, flags = 0] = events.subarray(i * UFFD_EVENT_FIELDS);
        if (type === UFFD_EVENT.pagefault) this.faults.add(address - (address % PAGE_BYTES));
        else if (type === UFFD_EVENT.remove) this.removed.push({ start: address, end: flags });
      }
    });
    return this;
  }

  async faultAt(region: number, page: number): Promise<void> {
    await until(`a fault on page ${page}`, () => this.faults.has(this.at(region, page)));
  }

  /** Brings a page full of `byte`, and wakes who waits for it. */
  fill(region: number, page: number, byte: number, pages = 1): void {
    const bytes = pages * PAGE_BYTES;
    const outcome = this.uffd.copy(this.at(region, page), Buffer.alloc(bytes, byte), 0, bytes, true);
    if (outcome.kind !== 'done') throw new Error(`COPY of page ${page}: ${outcome.kind}`);
  }

  /** As the agent does at its end. */
  unregister(): void {
    for (const region of this.handshake.regions) this.uffd.unregister(region.base_host_virt_addr, region.size);
  }

  /** Idempotent: as an agent that is killed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.uffd.close();
    for (const fd of this.#descriptors) closeSync(fd);
    this.#connection.close();
  }
}

export class Agent {
  readonly path: string;
  readonly #listener: UnixListener;
  readonly #channels: Channel[] = [];
  #taken = 0;
  /** Connections, whether they came to a handshake or not. */
  connections = 0;

  /** @param path where it listens; a folder of its own by default */
  constructor(t: TestContext, path = join(temporaryFolder(t), 'agent.sock')) {
    this.path = path;
    this.#listener = UnixListener.listen(path, (connection) => this.#accept(connection));
    t.after(() => this.close());
  }

  /** The next connection's handshake, in the order in which they came. */
  async next(): Promise<Channel> {
    const index = this.#taken++;
    await until(`handshake ${index + 1}`, () => this.#channels.length > index);
    const channel = this.#channels[index];
    if (channel === undefined) throw new Error(`no handshake within ${HANG_MS} ms`);
    return channel;
  }

  get handshakes(): number {
    return this.#channels.length;
  }

  close(): void {
    this.#listener.close();
    for (const channel of this.#channels) channel.close();
  }

  #accept(connection: UnixConnection): void {
    this.connections++;
    let text = '';
    const descriptors: number[] = [];
    connection.onClose(() => undefined);
    connection.onData((data, fds) => {
      text += data.toString();
      descriptors.push(...fds);
      if (!text.endsWith('\n')) return;
      this.#channels.push(new Channel(JSON.parse(text) as Handshake, descriptors, connection));
    });
  }
}

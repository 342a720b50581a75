import { ErrorReason, PagewakeError } from './errors.ts';

const PREFIX_BYTES = 5;
const FIRST_ROOM_BYTES = 64 * 1024;

/** Takes gRPC's messages out of a byte stream: a flag, four bytes of length, the message. */
export class MessageReader {
  /** Of one message. May be changed while messages are read. */
  maxBytes: number;
  readonly #onMessage: (message: Buffer) => void;
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  #prefixBytes = 0;
  /** Holds a message that came in pieces: one buffer for all of them, as a fresh one for each costs more than all else here. */
  #room: Buffer = Buffer.alloc(0);
  #have = 0;
  #length = 0;

  /** @param onMessage gets a message that is valid until it returns */
  constructor(maxBytes: number, onMessage: (message: Buffer) => void) {
    this.maxBytes = maxBytes;
    this.#onMessage = onMessage;
  }

  /** @throws PagewakeError INVALID_ARGUMENT for what is no message of ours */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#prefixBytes < PREFIX_BYTES) {
        at += this.#takePrefix(chunk, at);
        continue;
      }
      const left = chunk.length - at;
      if (this.#have === 0 && left >= this.#length) {
        const message = chunk.subarray(at, at + this.#length);
        at += this.#length;
        this.#done(message);
        continue;
      }
      const taken = Math.min(left, this.#length - this.#have);
      chunk.copy(this.#roomFor(this.#length), this.#have, at, at + taken);
      at += taken;
      this.#have += taken;
      if (this.#have === this.#length) this.#done(this.#room.subarray(0, this.#length));
    }
  }

  #takePrefix(chunk: Buffer, at: number): number {
    const taken = Math.min(chunk.length - at, PREFIX_BYTES - this.#prefixBytes);
    chunk.copy(this.#prefix, this.#prefixBytes, at, at + taken);
    this.#prefixBytes += taken;
    if (this.#prefixBytes < PREFIX_BYTES) return taken;
    this.#length = this.#prefix.readUInt32BE(1);
    if (this.#prefix[0] !== 0) throw refused('a compressed message, which was not agreed on');
    if (this.#length > this.maxBytes)
      throw refused(`a message of ${this.#length} bytes; at most ${this.maxBytes} are accepted`);
    if (this.#length === 0) this.#done(this.#room.subarray(0, 0));
    return taken;
  }

  #roomFor(length: number): Buffer {
    if (this.#room.length < length)
      this.#room = Buffer.allocUnsafeSlow(Math.min(this.maxBytes, Math.max(2 * length, FIRST_ROOM_BYTES)));
    return this.#room;
  }

  #done(message: Buffer): void {
    this.#prefixBytes = 0;
    this.#have = 0;
    this.#onMessage(message);
  }
}

const refused = (message: string): PagewakeError => new PagewakeError(ErrorReason.INVALID_ARGUMENT, message);

/** Puts the prefix right before a message of `length` bytes that begins at `start`. @returns where the prefix begins */
export function putMessagePrefix(buffer: Buffer, start: number, length: number): number {
  const at = start - PREFIX_BYTES;
  buffer[at] = 0;
  buffer.writeUInt32BE(length, at + 1);
  return at;
}

/** A message with its prefix, in a buffer of its own. */
export function framed(message: Uint8Array): Buffer {
  const buffer = Buffer.allocUnsafe(PREFIX_BYTES + message.length);
  buffer.set(message, PREFIX_BYTES);
  putMessagePrefix(buffer, PREFIX_BYTES, message.length);
  return buffer;
}

export { PREFIX_BYTES as MESSAGE_PREFIX_BYTES };
